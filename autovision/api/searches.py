"""Searches: estimate, run, stop, go on, explain."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from autovision.api.deployments import Deployments
from autovision.errors import InvalidInput
from autovision.records.models import ModelVersion
from autovision.records.searches import ClusterView, PriceTable, SearchRequest, SearchState
from autovision.records.trials import TrialResult
from autovision.registry import deployments
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.search.progress import ProgressEvent
from autovision.space import Space, load_space
from autovision.store import lease

# What needs torch or Ray is imported by the methods that use it: looking things up takes no seconds.
if TYPE_CHECKING:
    from autovision.search.estimates.estimate import Estimate
    from autovision.search.explain import Explanation
    from autovision.search.sharing.queue import Entry, Outlook

OnProgress = Callable[[ProgressEvent], None]


class Searches(Deployments):
    """Searches: estimate, run, stop, go on, explain."""

    def search(
        self,
        dataset: str,
        *,
        space: str | Space = "quick",
        budget_s: float = 120.0,
        seed: int = 0,
        wait: bool = True,
        deployment: str | None = None,
        licenses: Sequence[str] = (),
        on_progress: OnProgress = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
        **options: Any,
    ) -> SearchState:
        """Submit a search and, with `wait`, run it to its end. The same call again returns the same search.

        Args:
            space: a `Space`, the name of a shipped one, `MODULE:NAME`, or a JSON file.
            deployment: where the model wants to be promoted by the controller; it is made if there is none.
            licenses: SPDX identifiers; backbones whose weights have another licence, or an unknown one, are left
                out. Empty: any.
            options: any other field of `SearchRequest`, such as `metric`, `scheduler`, `max_trials`, `max_latency_ms`.
        """
        resolved = load_space(space) if isinstance(space, str) else space
        request = self.prepare(
            dataset,
            resolved,
            budget_s=budget_s,
            licenses=licenses,
            seed=seed,
            deployment=deployment,
            **options,
        )
        state = self.submit(request)
        return self.resume(request.id, on_progress=on_progress, should_stop=should_stop) if wait else state

    def prepare(self, dataset: str, space: Space, *, budget_s: float, **options: Any) -> SearchRequest:
        """A request that was checked, as far as that is possible without connecting to Ray, and not submitted yet."""
        request = requests.make_request(self.store, dataset, space, budget_s=budget_s, **options)
        self._preflight(request)
        return request

    def submit(self, request: SearchRequest, by: str | None = None) -> SearchState:
        """Put a request into the queue; the same again is the search that it already is.

        Args:
            by: who shares the queue with others; None: whoever works on the store itself.
        """
        if request.deployment is not None:
            deployments.create(self.store, request.deployment, request.dataset, request.space)
        return requests.submit(self.store, request, by=by)

    def estimate(
        self,
        dataset: str,
        *,
        space: str | Space = "quick",
        budget_s: float = 120.0,
        licenses: Sequence[str] = (),
        prices: PriceTable | None = None,
        **options: Any,
    ) -> Estimate:
        """What a budget buys, before it is spent: on the cluster that this process is connected to, or is to connect to
        (`RAY_ADDRESS`), else on this machine alone.

        Args:
            prices: what the cluster costs; None: what `AUTOVISION_PRICES` says, or nothing.
            options: any other field of `SearchRequest`, such as `warm_start`: whether to predict from what earlier
                searches measured.
        """
        from autovision.search.estimates import preview

        resolved = load_space(space) if isinstance(space, str) else space
        request = requests.make_request(
            self.store, dataset, resolved, budget_s=budget_s, licenses=licenses, **options
        )
        # A Ray of one's own would have what this machine has, which is known without starting one.
        if self._address or os.environ.get("RAY_ADDRESS"):
            self.connect()
        return preview.preview(self.store, request, prices)

    def finish(self, search: str, *, on_progress: OnProgress = lambda event: None) -> SearchState:
        """Evaluate and register the best that a stopped search has so far, without another trial."""
        from autovision.search.run import finish_search

        return finish_search(self.store, search, on_progress=on_progress)

    def register(self, search: str, trial: str, *, begins: Callable[[], None] = lambda: None) -> ModelVersion:
        """Evaluate and register the model of a given trial, such as another one of the search's front.

        The search keeps its own, which is what its winner gives. `begins` is called when there is something to do.
        Raises `NotFound`, and `InvalidInput` where the trial left no model.
        """
        from autovision.search.run import register

        return register(self.store, search, trial, begins=begins)

    def outlook(self, dataset: str, *, space: str | Space = "quick", **options: Any) -> Outlook:
        """What would happen to a search, which is not submitted: its place in the queue, its share, what speaks
        against it. The arguments are those of `search`.

        The cluster is that of a controller which runs, else the one that this process connects to.
        """
        from autovision.search.sharing import preflight
        from autovision.search.sharing.queue import outlook

        resolved = load_space(space) if isinstance(space, str) else space
        options = {"budget_s": 120.0} | options
        request = requests.make_request(self.store, dataset, resolved, **options)
        view = self._cluster(connect=True)
        assert view is not None, "it is connected"
        found = outlook(self.store, request, view)
        try:
            preflight.check_models(request, len(self.dataset(dataset).classes), view)
        except InvalidInput as error:
            return replace(found, faults=(*found.faults, str(error)), share=0, whole=0, waits=None)
        return found

    def _preflight(self, request: SearchRequest) -> None:
        """Raises `InvalidInput` for what can never fit, as far as that is known without connecting to Ray."""
        from autovision.search.sharing import preflight

        view = self._cluster()
        classes = len(self.dataset(f"{request.dataset}@{request.dataset_version}").classes)
        if view is not None:
            preflight.check(request, view)
        preflight.check_models(request, classes, view)

    def _cluster(self, *, connect: bool = False) -> ClusterView | None:
        """The cluster that this process is connected to, or the one of a controller that runs."""
        import ray

        from autovision.search.sharing import cluster

        if not ray.is_initialized():
            if lease.is_held(self.store, "controller") and (view := cluster.known(self.store)) is not None:
                return view
            if not connect:
                return None
            self.connect()
        return cluster.here()

    def resume(
        self,
        search: str,
        *,
        on_progress: OnProgress = lambda event: None,
        should_stop: Callable[[], bool] = lambda: False,
        seen: SearchState | None = None,
    ) -> SearchState:
        """Go on with a search that was stopped or lost its driver; a finished one is returned as it is.

        Raises `Conflict` for a re-search whose deployment has another one that waits or runs by now.

        Args:
            seen: the search when it was decided to go on with it: whoever stopped it since then is heeded. None: as
                it is now, which is before Ray is connected.
        """
        from autovision.search.run import run_search

        request, state = requests.get(self.store, search)
        seen = seen or state
        if state.status in requests.LEFT:
            requests.check_alone(self.store, request)
        self.connect()
        return run_search(
            self.store,
            search,
            on_progress=on_progress,
            should_stop=should_stop,
            resumes=requests.stop_asked(seen),
        )

    def extend(
        self,
        search: str,
        more_s: float | None = None,
        *,
        more_trials: int | None = None,
        more_cost: float | None = None,
    ) -> SearchState:
        """Let a search use more than it has, even if it is finished; `resume` then goes on with it."""
        from autovision.search.extending import extend

        return extend(self.store, search, more_s, more_trials=more_trials, more_cost=more_cost)

    def stop(self, search: str) -> SearchState:
        """Ask whoever runs a search to stop it. What it has done is kept; `resume` goes on with it."""
        return requests.request_stop(self.store, search)

    def searches(self) -> list[tuple[SearchRequest, SearchState]]:
        """Every search, oldest first."""
        return all_searches(self.store)

    def search_of(self, search: str) -> tuple[SearchRequest, SearchState]:
        return requests.get(self.store, search)

    def trials(self, search: str) -> list[TrialResult]:
        """A search's ledger."""
        requests.get(self.store, search)
        return requests.trials(self.store, search)

    def explain(self, search: str) -> Explanation:
        """Why a search ended as it did, or how far it has come. Raises `NotFound`."""
        from autovision.search.explain import explain  # Optuna and torch, which most commands do not need

        request, state = requests.get(self.store, search)
        return explain(
            request, state, requests.trials(self.store, search), requests.finished(self.store, search)
        )

    def queue(self) -> list[Entry]:
        """Searches that run or wait: their order, their shares, and why each of them waits."""
        from autovision.search.sharing.queue import entries  # Ray, which most commands do not need

        return entries(self.store)
