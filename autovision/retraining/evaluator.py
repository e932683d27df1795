"""One evaluation of a deployment's retraining, from what is known to what is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from autovision.records.deployments import Deployment
from autovision.records.retraining import RetrainingState
from autovision.retraining import evaluation, policy, request
from autovision.retraining.evaluation import Seen
from autovision.retraining.history import Searches
from autovision.retraining.memory import Memory
from autovision.retraining.request import Reports
from autovision.store import keys
from autovision.store.protocol import Store


@dataclass
class Evaluator:
    """Evaluates, and remembers between evaluations what need not be read again."""

    clock: Callable[[], datetime]
    memory: Memory = field(default_factory=Memory)
    reports: Reports = field(default_factory=Reports)
    unwritten: dict[str, int] = field(default_factory=dict)
    """evaluations that were not written down, by deployment"""

    def evaluate(
        self, store: Store, deployment: Deployment, seen: Seen, everywhere: Searches, *, seed: int, term: int
    ) -> RetrainingState | None:
        """What was decided, written down with the search that it asks for; None: nothing that is worth it.

        Args:
            seen: how the retraining stood before anything else was read.
            everywhere: all searches.
            term: fencing token of whoever leads; 0: nobody does.

        Raises:
            Conflict: somebody else was faster, with this or with the data set's next version.
        """
        look = partial(
            request.observe,
            store,
            deployment,
            self.clock,
            seen.state,
            memory=self.memory,
            reports=self.reports,
        )
        situation = look(everywhere=everywhere)
        verdict = policy.decide(situation.snapshot, deployment.policy)
        if verdict.accepted:
            # An act rests on what is read now, never on what is remembered.
            situation = look(afresh=True)
            verdict = policy.decide(situation.snapshot, deployment.policy)
        at = situation.snapshot.now
        decision, asked = keys.timestamped_id(at), None
        if verdict.accepted:
            reason = f"{verdict.what}: {verdict.why}"
            asked = request.build(store, deployment, situation, reason=reason, seed=seed, nonce=decision)
        count = self.unwritten[deployment.name] = self.unwritten.get(deployment.name, 0) + 1
        state = evaluation.successor(
            seen.state,
            verdict,
            deployment.policy,
            request=asked,
            decision_id=decision,
            at=at,
            evaluations=count,
            term=term,
        )
        if state is not None:
            evaluation.write(store, seen, state)
            self.unwritten[deployment.name] = 0
        return state
