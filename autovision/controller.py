"""The whole loop on one page: observe, decide, act. The only module that knows every stage.

    search       queued searches are run, one here or several in processes of their own, and their models registered
    promotion    a finished search's model is compared with the champion, and takes over step by step, on evidence;
                 one that was not shown to be better is looked at again as labels come in
    monitoring   each full window of captured requests is compared with what is normal, by several detectors
    adaptation   an alarm is answered without labels, where a policy wants that and an estimate says that it helps
    retraining   whatever the policy takes for a trigger leads to the next data set version and a queued search
    retention    captured requests that a deployment's policy no longer keeps are deleted

Everything that is known is in the store, and every act is a record that reveals it was done; so the controller
may be killed anywhere and goes on from there, and a pass over a settled store changes nothing but the note of when it
was. While one leads it writes through a fence that its lease holds up; what was on its way when the lease ended is the
same whoever writes it, or a compare-and-swap that fails if another one has acted.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from autovision.errors import AutoVisionError, Conflict, Interrupted, StoreUnavailable
from autovision.model.version import read_version
from autovision.monitoring.arrivals import Arrivals
from autovision.monitoring.told import told
from autovision.monitoring.watch import watch
from autovision.promotion import refused, rollout
from autovision.promotion.refused import Refused, Said, Short
from autovision.records.base import now
from autovision.records.deployments import Decision, Deployment, DriftReport
from autovision.records.retraining import RetrainingState
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.retraining import adaptation, evaluation
from autovision.retraining import request as retraining
from autovision.retraining.evaluator import Evaluator
from autovision.search import requests
from autovision.search.fleet import Fleet
from autovision.search.progress import ProgressEvent
from autovision.search.run import run_search
from autovision.search.sharing import queue
from autovision.store import keys, labels, lease, retention
from autovision.store.fence import FencedStore
from autovision.store.lease import HeldLease
from autovision.store.protocol import Store
from autovision.store.remembered import Remembered

log = logging.getLogger(__name__)

_LEASE_S = 30.0
_STORE = "the store: pass"
_FORGET_EVERY = timedelta(minutes=10)
_LOOK_EVERY = timedelta(minutes=10)
_FORGET_AT_ONCE = 5_000
"""requests and images that are deleted in one pass, so that the other stages get their turn"""


@dataclass(frozen=True)
class Event:
    """Something that the controller did, for whoever watches it."""

    stage: str
    """`search`, `promotion`, `monitoring`, `adaptation`, `retraining` or `retention`"""
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
    looked_at: dict[str, datetime] = field(default_factory=dict)
    """when it was last looked whether there are labels enough to judge a refused challenger again, by deployment"""
    answered: dict[str, str] = field(default_factory=dict)
    """the latest report that is known to be answered without labels, or need not be, by deployment"""
    lease_clock: Callable[[], datetime] = now
    """by which it leads; the same on all machines"""

    _held: HeldLease | None = field(default=None, init=False)
    # What was read before and cannot have changed: a pass over many quiet deployments reads little.
    _everywhere: list[tuple[SearchRequest, SearchState]] | None = field(default=None, init=False)
    _arrivals: Arrivals = field(default_factory=Arrivals, init=False)
    _decided: Remembered[Decision, Said] = field(
        default_factory=lambda: Remembered(Decision, refused.said), init=False
    )
    _short: dict[str, dict[str, Short]] = field(default_factory=dict, init=False)
    """of refused challengers, by deployment and model: why there was not enough to judge them again"""
    _carried_out: dict[str, str] = field(default_factory=dict, init=False)
    """the latest decision on retraining that is known to be carried out, by deployment"""

    def __post_init__(self) -> None:
        self._evaluator = Evaluator(self.clock)

    @property
    def acting(self) -> Store:
        """The store, which can be written for as long as this controller leads, or if it need not."""
        return self.store if self._held is None else FencedStore(self.store, self._held)

    def run(self, *, once: bool = False, interval_s: float = 2.0) -> Iterator[Event]:
        """Pass after pass until stopped, or until a pass finds nothing to do (`once`).

        While the store is away it waits, unless `once`; if its lease ended meanwhile it leads again, unless somebody
        else does.

        Raises:
            Conflict: another controller leads.
            StoreUnavailable: the store is away when this begins, or `once`.
        """
        held = self._held = self._lead()
        try:
            while not self.should_stop():
                done = False
                try:
                    if not held.held:
                        held = self._held = self._lead_again(held)
                    for event in self.step():
                        done = True
                        yield event
                    self.failures.pop(_STORE, None)
                except StoreUnavailable as error:
                    if once:
                        raise
                    if _STORE not in self.failures:
                        yield Event("error", f"the store is away, and is tried again: {error}")
                    self.failures[_STORE] = str(error)
                if once and not done and not (self.fleet and self.fleet.searches):
                    return
                if not done:
                    self._wait(interval_s)
        finally:
            self._held = None
            try:
                if self.fleet is not None:
                    self.fleet.recall()
            finally:
                held.release()

    def step(self) -> Iterator[Event]:
        """One pass over everything, one event for each thing that was done."""
        yield from self._search()
        yield from self.step_without_search()

    def step_without_search(self) -> Iterator[Event]:
        """A pass over the deployments alone: promote, monitor, retrain, forget; what it queues waits for a full one."""
        self._everywhere = None
        for name in deployments.names(self.store):
            for stage in (
                self._go_on,
                self._promote,
                self.monitor,
                self._adapt,
                self._retrain,
                self._forget,
            ):
                yield from self._guarded(name, partial(stage, name), stage.__name__)

    # --------------------------------------------------------------------------------------------- stages

    def _search(self) -> Iterator[Event]:
        if self.fleet is not None:
            for news in self.fleet.turn(self.connect):
                yield Event("error" if news.fault else "search", news.text, news.state)
            return
        tried: set[str] = set()
        while not self.should_stop() and (self._held is None or self._held.held):
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
        decision = rollout.go_on(self.acting, name, clock=self.clock)
        if decision is not None:
            yield Event("promotion", decision.what, decision)

    def _promote(self, name: str) -> Iterator[Event]:
        deployment = deployments.get(self.store, name)
        said = self._said(deployment)
        judged = {model for model, _ in said}
        for request, state in self._searches():
            if (
                request.deployment == deployment.name
                # A search that finds nothing better than the champion has that as its model.
                and state.model not in (None, deployment.model, request.parent_model)
                and state.model not in judged
            ):
                event = None
                act = partial(self._consider, deployment, request, state.model)
                # One that cannot be compared must not keep those after it from their turn.
                for event in self._guarded(name, act, f"promote {state.model}"):
                    yield event
                if event is not None and event.stage == "promotion":
                    return  # what others are compared with may be another one now
        yield from self._look_again(deployment, said)

    def _said(self, deployment: Deployment) -> list[Said]:
        """What was decided of challengers."""
        said = [*self._decided.read_all(self.store, keys.decisions(deployment.name)).values()]
        if deployment.decided is not None:
            said.append(refused.said(deployment.decided))
        return said

    def _consider(self, deployment: Deployment, request: SearchRequest, model: str) -> Iterator[Event]:
        decision = rollout.consider(
            self.acting,
            deployment.name,
            model,
            revision=deployment.revision,
            metric=request.metric,
            costs=request.costs,
            clock=self.clock,
        )
        yield Event("promotion", decision.what, decision)

    def _look_again(self, deployment: Deployment, said: list[Said]) -> Iterator[Event]:
        """Judge refused challengers by what was labelled since."""
        if deployment.model is None or deployment.rollout is not None:
            return
        at, last = self.clock(), self.looked_at.get(deployment.name)
        cases = refused.candidates(said, deployment.model, at)
        if not cases or (last is not None and at - last < _LOOK_EVERY):
            return
        self.looked_at[deployment.name] = at
        words = labels.count(self.store, deployment.name)
        for case in cases:
            act, event = partial(self._judge_again, deployment, case, words), None
            # One that cannot be judged must not keep those after it from their turn.
            for event in self._guarded(deployment.name, act, f"judge {case.model} again"):
                yield event
            if event is not None and event.stage == "promotion":
                return

    def _judge_again(self, deployment: Deployment, case: Refused, words: int) -> Iterator[Event]:
        decision = rollout.look_again(
            self.acting,
            deployment.name,
            case,
            words,
            short=self._short.setdefault(deployment.name, {}),
            revision=deployment.revision,
            clock=self.clock,
        )
        if decision is not None:
            yield Event("promotion", decision.what, decision)

    def monitor(self, name: str) -> Iterator[Event]:
        """Examine the captured requests of a deployment since the last report, if they fill a window."""
        deployment = deployments.get(self.store, name)
        if deployment.model is None:
            return
        last = retraining.latest_report(self.store, deployment, self._evaluator.reports)
        after = last.window_end if last else None
        size = deployment.policy.window
        if not self._arrivals.fill(self.store, name, deployment.model, size, after=after, until=self.clock()):
            return
        report = watch(self.acting, deployment, self.clock)
        if report is not None:
            yield Event("monitoring", told(report), report)

    def _adapt(self, name: str) -> Iterator[Event]:
        """Answer an alarm without labels, where the policy says so."""
        deployment = deployments.get(self.store, name)
        if not deployment.policy.adapt or deployment.model is None or deployment.rollout is not None:
            return
        report = retraining.latest_report(self.store, deployment, self._evaluator.reports)
        if report is None or not report.alarm or self.answered.get(name) == report.id:
            return
        at = self.clock()
        decision = adaptation.answer(self.acting, name, report, seed=self.seed, clock=self.clock)
        if decision.created_at >= at:
            yield Event("adaptation", f"{decision.what}: {decision.why}", decision)
        # Whoever answered it may have been killed before the gates were asked.
        if decision.subject is not None and decision.subject not in {m for m, _ in self._said(deployment)}:
            champion = read_version(self.store, deployment.model)
            request, _ = requests.get(self.store, champion.lineage.search)
            yield from self._consider(deployment, request, decision.subject)
        self.answered[name] = report.id

    def _retrain(self, name: str) -> Iterator[Event]:
        deployment = deployments.get(self.store, name)
        if deployment.model is None:
            return
        seen = evaluation.read(self.store, name)
        # Whoever decided may have been killed before it was carried out.
        self._carry_out(seen.state)
        term = 0 if self._held is None else self._held.token
        state = self._evaluator.evaluate(
            self.acting, deployment, seen, self._searches(), seed=self.seed, term=term
        )
        if state is None or state.decision is None or state.decision == seen.state.decision:
            return
        self._carry_out(state)
        if evaluation.stirs(state.decision):
            yield Event("retraining", f"{state.decision.what}: {state.decision.why}", state.decision)

    def _carry_out(self, state: RetrainingState) -> None:
        """Submit what the latest decision asks for, and write it down; again does nothing."""
        decision = state.decision
        if decision is None or self._carried_out.get(state.deployment) == decision.id:
            return
        if state.request is not None:
            requests.submit(self.acting, state.request, at=decision.created_at)
            self._everywhere = None
        deployments.record_decision(self.acting, decision)
        self._carried_out[state.deployment] = decision.id

    def _forget(self, name: str) -> Iterator[Event]:
        policy, at = deployments.get(self.store, name).capture_policy, self.clock()
        last = self.forgot_at.get(name)
        if not policy.forgets or (last is not None and at - last < _FORGET_EVERY):
            return
        found = retention.forget(self.acting, name, policy, at, delete=True, most=_FORGET_AT_ONCE)
        if found.complete:
            self.forgot_at[name] = at
        if found.any:
            yield Event("retention", f"{name} forgot {found}, which its policy no longer keeps")

    # -------------------------------------------------------------------------------------------- helpers

    def _searches(self) -> list[tuple[SearchRequest, SearchState]]:
        """All, as they were in this pass."""
        if self._everywhere is None:
            self._everywhere = all_searches(self.store)
        return self._everywhere

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
            yield from self._told_once(subject, failure, str(error))
        except Exception as error:
            if stage == "_search":  # nothing says how that did, and it would begin anew at once
                raise
            # Whatever it is, the others must have their turn.
            fault = f"unexpected {type(error).__name__}: {error}"
            if self.failures.get(failure) != fault:
                log.exception("%s failed", failure)
            yield from self._told_once(subject, failure, fault)

    def _told_once(self, subject: str, failure: str, fault: str) -> Iterator[Event]:
        if self.failures.get(failure) != fault:
            self.failures[failure] = fault
            yield Event("error", f"{subject}: {fault}")

    def _lead_again(self, held: HeldLease) -> HeldLease:
        if not held.unreached:
            raise Conflict("this controller's lease ended while it worked; another one may lead now")
        return self._lead()

    def _lead(self) -> HeldLease:
        holder = f"{socket.gethostname()}:{os.getpid()}"
        held = lease.acquire(self.store, "controller", holder, _LEASE_S, self.lease_clock)
        if held is None:
            raise Conflict(
                f"another controller leads the store {self.store.uri}; stop it first "
                f"(after a crash its lease ends within {_LEASE_S:g} s)"
            )
        return held.keep_alive()
