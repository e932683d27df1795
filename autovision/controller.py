"""The whole loop on one page: observe, decide, act. The only module that knows every stage.

    search       queued searches are run, one here or several in processes of their own, and their models registered
    promotion    a finished search's model is compared with the champion, and takes over step by step, on evidence
    monitoring   each full window of captured requests is tested for drift
    retraining   drift or enough labels lead to the next data set version and a queued search
    retention    captured requests that a deployment's policy no longer keeps are deleted

Everything that is known is in the store, and every act is a record that reveals it was done; so the controller
may be killed anywhere and goes on from there, and a pass over a settled store changes nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from autovision.errors import AutoVisionError, Conflict, Interrupted
from autovision.model import bundle
from autovision.model.version import read_version
from autovision.monitoring.report import examine
from autovision.monitoring.window import latest_window
from autovision.promotion import rollout
from autovision.records.base import now
from autovision.records.deployments import Decision, DecisionKind, Deployment, DriftReport
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.retraining import policy as retraining_policy
from autovision.retraining import request as retraining
from autovision.retraining.policy import Snapshot
from autovision.search import requests
from autovision.search.fleet import Fleet
from autovision.search.progress import ProgressEvent
from autovision.search.run import run_search
from autovision.search.sharing import queue
from autovision.store import captures, keys, lease, records, retention
from autovision.store.lease import HeldLease
from autovision.store.protocol import Store

_LEASE_S = 30.0
_FORGET_EVERY = timedelta(minutes=10)
_FORGET_AT_ONCE = 5_000
"""requests and images that are deleted in one pass, so that the other stages get their turn"""


@dataclass(frozen=True)
class Event:
    """Something that the controller did, for whoever watches it."""

    stage: str
    """`search`, `promotion`, `monitoring`, `retraining` or `retention`"""
    text: str
    record: SearchState | Decision | DriftReport | None = None


@dataclass
class Controller:
    """Turns the loop; needs a connection to Ray only when a search is due."""

    store: Store
    clock: Callable[[], datetime] = now
    seed: int = 0
    on_progress: Callable[[ProgressEvent], None] = lambda event: None
    should_stop: Callable[[], bool] = lambda: False
    connect: Callable[[], None] = lambda: None
    """called before a search is run, to connect to Ray"""
    fleet: Fleet | None = None
    """runs several searches at once while the other stages go on; None: one after the other, in this process"""
    failures: dict[str, str] = field(default_factory=dict)
    """what could not be done, by `subject: stage`: it is told once, and tried again in the next pass"""
    forgot_at: dict[str, datetime] = field(default_factory=dict)
    """when it was last seen that a deployment keeps no more than its policy says"""

    def run(self, *, once: bool = False, interval_s: float = 2.0) -> Iterator[Event]:
        """Pass after pass until stopped, or until a pass finds nothing to do (`once`).

        Raises:
            Conflict: another controller leads.
        """
        with self._lead() as held:
            try:
                while not self.should_stop():
                    if not held.held:
                        raise Conflict(
                            "this controller's lease ended while it worked; another one may lead now"
                        )
                    done = False
                    for event in self.step():
                        done = True
                        yield event
                    if once and not done and not (self.fleet and self.fleet.searches):
                        return
                    if not done:
                        self._wait(interval_s)
            finally:
                if self.fleet is not None:
                    self.fleet.recall()

    def step(self) -> Iterator[Event]:
        """One pass over everything, one event for each thing that was done."""
        yield from self._search()
        yield from self.step_without_search()

    def step_without_search(self) -> Iterator[Event]:
        """A pass over the deployments alone: promote, monitor, retrain, forget; what it queues waits for a full one."""
        for name in deployments.names(self.store):
            for stage in (self._go_on, self._promote, self.monitor, self._retrain, self._forget):
                yield from self._guarded(name, partial(stage, name), stage.__name__)

    # --------------------------------------------------------------------------------------------- stages

    def _search(self) -> Iterator[Event]:
        if self.fleet is not None:
            for news in self.fleet.turn(self.connect):
                yield Event("error" if news.fault else "search", news.text, news.state)
            return
        tried: set[str] = set()
        while not self.should_stop():
            # One that is said to run, but whose driver is gone, is gone on with; its lease tells.
            due = [request for request, _ in queue.waiting(self.store) if request.id not in tried]
            if not due:
                return
            tried.add(due[0].id)
            yield from self._guarded(due[0].id, partial(self._run, due[0]))

    def _run(self, request: SearchRequest) -> Iterator[Event]:
        self.connect()
        try:
            state = run_search(
                self.store,
                request.id,
                on_progress=self.on_progress,
                should_stop=self.should_stop,
                resumes=False,
                from_queue=True,
            )
        except Interrupted as stopped:
            if not self.should_stop():
                yield Event("search", str(stopped), requests.get(self.store, request.id)[1])
                return
            # Whoever stopped this controller did not mean the search: the next one goes on with it.
            requests.set_state(self.store, request.id, status=SearchStatus.QUEUED)
            raise
        yield Event("search", requests.told(request, state), state)

    def _go_on(self, name: str) -> Iterator[Event]:
        """The next step of a rollout that is under way."""
        decision = rollout.go_on(self.store, name, clock=self.clock)
        if decision is not None:
            yield Event("promotion", decision.what, decision)

    def _promote(self, name: str) -> Iterator[Event]:
        deployment = deployments.get(self.store, name)
        judged = {
            d.subject
            for d in deployments.decisions(self.store, deployment.name)
            if d.kind is DecisionKind.PROMOTE
        }
        for request, state in all_searches(self.store):
            if (
                request.deployment == deployment.name
                and state.model not in (None, deployment.model)
                and state.model not in judged
            ):
                decision = rollout.consider(
                    self.store,
                    deployment.name,
                    state.model,
                    metric=request.metric,
                    costs=request.costs,
                    clock=self.clock,
                )
                yield Event("promotion", decision.what, decision)

    def monitor(self, name: str) -> Iterator[Event]:
        """Examine the captured requests of a deployment since the last report, if they fill a window."""
        deployment = deployments.get(self.store, name)
        if deployment.model is None:
            return
        last = retraining.latest_report(self.store, deployment)
        after = last.window_end if last else None
        seen = captures.read(self.store, deployment.name, after=after).captures
        window = latest_window(seen, deployment.policy.window, deployment.model, after=after)
        if window is None:
            return
        version = read_version(self.store, deployment.model)
        report = examine(
            deployment.name,
            deployment.model,
            bundle.load_reference(self.store, version),
            window,
            alpha=deployment.policy.alpha,
            seed=self.seed,
            clock=self.clock,
        )
        records.create(self.store, keys.report(deployment.name, report.id), report)
        word = "DRIFT" if report.alarm else "no drift"
        yield Event(
            "monitoring",
            f"{word} in the last {report.n} requests (score {report.score:.4f}, alarm at {report.threshold:.4f})",
            report,
        )

    def _retrain(self, name: str) -> Iterator[Event]:
        deployment = deployments.get(self.store, name)
        if deployment.model is None:
            return
        situation = retraining.observe(self.store, deployment, self.clock)
        verdict = retraining_policy.decide(situation.snapshot, deployment.policy)
        if not verdict.accepted and not self._is_news(deployment, situation.snapshot, verdict.why):
            return
        at = self.clock()
        subject = None
        if verdict.accepted:
            request = retraining.build(
                self.store, deployment, situation, reason=f"{verdict.what}: {verdict.why}", seed=self.seed
            )
            requests.submit(self.store, request)
            subject = request.id
        decision = Decision(
            id=keys.timestamped_id(at),
            kind=DecisionKind.RETRAIN,
            deployment=deployment.name,
            accepted=verdict.accepted,
            what=verdict.what,
            why=verdict.why,
            subject=subject,
            numbers=verdict.numbers,
            created_at=at,
        )
        deployments.record_decision(self.store, decision)
        yield Event("retraining", f"{decision.what}: {decision.why}", decision)

    def _forget(self, name: str) -> Iterator[Event]:
        policy, at = deployments.get(self.store, name).capture_policy, self.clock()
        last = self.forgot_at.get(name)
        if not policy.forgets or (last is not None and at - last < _FORGET_EVERY):
            return
        found = retention.forget(self.store, name, policy, at, delete=True, most=_FORGET_AT_ONCE)
        if found.complete:
            self.forgot_at[name] = at
        if found.any:
            yield Event("retention", f"{name} forgot {found}, which its policy no longer keeps")

    # -------------------------------------------------------------------------------------------- helpers

    def _is_news(self, deployment: Deployment, snapshot: Snapshot, why: str) -> bool:
        """Whether a decision to wait is worth a record: something could have led to a search, and the reason is new."""
        stirred = snapshot.labels > 0 or (snapshot.report is not None and snapshot.report.alarm)
        said = [
            d for d in deployments.decisions(self.store, deployment.name) if d.kind is DecisionKind.RETRAIN
        ]
        return stirred and (not said or said[-1].why != why)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.should_stop() and time.monotonic() < until:
            time.sleep(min(0.2, seconds))

    def _guarded(
        self, subject: str, act: Callable[[], Iterator[Event]], stage: str = "_search"
    ) -> Iterator[Event]:
        """One subject's fault does not keep the others from their turn, nor itself from its other stages."""
        failure = f"{subject}: {stage.removeprefix('_')}"
        try:
            yield from act()
            self.failures.pop(failure, None)
        except Conflict as conflict:
            self.failures[failure] = str(conflict)  # somebody else is at it
        except AutoVisionError as error:
            if self.should_stop() or error.exit_code == 130:
                raise
            if self.failures.get(failure) != str(error):
                self.failures[failure] = str(error)
                yield Event("error", f"{subject}: {error}")

    def _lead(self) -> HeldLease:
        held = lease.acquire(self.store, "controller", f"{socket.gethostname()}:{os.getpid()}", _LEASE_S)
        if held is None:
            raise Conflict(
                f"another controller leads the store {self.store.uri}; stop it first "
                f"(after a crash its lease ends within {_LEASE_S:g} s)"
            )
        return held.keep_alive()
