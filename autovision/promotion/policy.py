"""Whether a challenger may take the champion's place: a pure function of paired predictions, and of what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from autovision.errors import InvalidInput
from autovision.metrics import COST, check_metric, members
from autovision.promotion.gates.better import better_somewhere
from autovision.promotion.gates.forgetting import no_forgetting
from autovision.promotion.gates.limits import Taken, within_limits
from autovision.promotion.gates.majority import beats_majority
from autovision.promotion.gates.new_class import new_class
from autovision.promotion.gates.not_worse import not_worse_on, not_worse_overall
from autovision.promotion.gates.paired import GateResult, Paired
from autovision.promotion.gates.robustness import as_robust
from autovision.records.deployments import Verdict
from autovision.records.gates import GatePolicy


def decide(
    paired: Paired,
    *,
    metric: str = "accuracy",
    policy: GatePolicy | None = None,
    corrupted: Mapping[str, Paired] | None = None,
    taken: Taken | None = None,
    better: GateResult | None = None,
) -> Verdict:
    """Accept the challenger if all gates pass; `numbers["gates"]` has each with its numbers.

    Without a champion it must beat the majority class. With one it must be not worse on all images,
    on each subgroup and in each class's recall, and better on all images or on a subgroup. Of classes that are new
    to the champion only the last takes notice. Since all
    must pass (intersection-union, Berger 1982), the error of accepting a challenger that is worse
    somewhere by more than the policy's margin stays at 5 % wherever there are images enough to bound it,
    and that of accepting one that is better nowhere at 5 % always (10 % with later looks: see
    `promotion.later`). With one or without, it must be
    within the policy's limits.

    Args:
        policy: margins and limits; None: those by default.
        corrupted: kind of corruption -> both models on the first of the same images, corrupted.
        taken: what serving it takes, where the policy limits that.
        better: whether it is better somewhere, as a later look asks it; None: as the first one does.

    Raises `InvalidInput` for an unknown metric, or one that is undefined on these images.
    """
    policy = policy or GatePolicy()
    check_metric(metric)
    if metric == COST and paired.costs is None:
        raise InvalidInput(f"{COST} needs costs; give them with the predictions, or gate by another metric")
    gates = _gates(paired, metric, policy, corrupted or {})
    if better is not None:
        gates = [better, *(gate for gate in gates if gate.name != "better_somewhere")]
    gates += within_limits(taken, policy) if taken is not None else ()
    failed = [gate for gate in gates if not gate.passed]
    accepted = not failed
    if not accepted:
        what = "refuse the challenger; what is served stays"
    elif paired.champion is None:
        what = "promote the first model"
    else:
        what = "promote the challenger over the champion"
    told = gates if accepted else failed
    passed = _passed(len(gates)) if accepted else f"it fails {len(failed)} of {len(gates)} gates"
    return Verdict(
        accepted=accepted,
        what=what,
        why=f"{passed}: " + "; ".join(f"{gate.name}: {gate.reason}" for gate in told),
        numbers={
            "metric": metric,
            "margin": policy.margin,
            "gate_policy": policy.model_dump(mode="json"),
            "n": len(paired.labels),
            "gates": [
                {"name": gate.name, "passed": gate.passed, "reason": gate.reason, "numbers": gate.numbers}
                for gate in gates
            ],
        },
    )


def _passed(gates: int) -> str:
    return "it passes the gate" if gates == 1 else f"it passes all {gates} gates"


def _gates(
    paired: Paired, metric: str, policy: GatePolicy, corrupted: Mapping[str, Paired]
) -> list[GateResult]:
    """Those that are about answers."""
    if paired.champion is None:
        return [beats_majority(paired)]
    margin = policy.margin
    new = [new_class(paired, label) for label in paired.unknown]
    if new and not paired.known.any():
        return [better_somewhere(paired, metric=metric), *new]
    both = _known_to_both(paired)
    occurring = np.flatnonzero(members(both.labels, len(both.classes)).any(0))
    return [
        better_somewhere(paired, metric=metric),
        not_worse_overall(both, metric=metric, margin=margin),
        *_subgroups(both, metric, margin),
        *(no_forgetting(both, int(label), margin=margin) for label in occurring),
        *_robustness(paired, corrupted, policy.robustness_margin),
        *new,
    ]


def _known_to_both(paired: Paired) -> Paired:
    """The images whose classes champion and challenger know, with their subgroups."""
    if not paired.unknown:
        return paired
    mask = paired.known
    groups = {name: group[mask] for name, group in paired.groups.items()}
    return replace(paired.only(mask), groups=groups, ungrouped=paired.ungrouped)


def _subgroups(paired: Paired, metric: str, margin: float) -> list[GateResult]:
    if paired.ungrouped is not None:
        # It is no fault of the challenger's, but nobody should believe that the subgroups were looked at.
        return [GateResult("not_worse_on", True, f"not judged: {paired.ungrouped}", {"n": 0})]
    return [not_worse_on(paired, group, metric=metric, margin=margin) for group in sorted(paired.groups)]


def _robustness(paired: Paired, corrupted: Mapping[str, Paired], margin: float | None) -> list[GateResult]:
    if margin is None or not corrupted:
        return []
    n = len(next(iter(corrupted.values())).labels)
    same = paired.only(np.arange(len(paired.labels)) < n)
    known = same.known
    if not known.any():
        return []
    return [
        as_robust(same.only(known), spoilt.only(known), kind, margin=margin)
        for kind, spoilt in corrupted.items()
    ]
