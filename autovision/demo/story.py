"""The demo: a solar-cell plant, its model, a new line of cells, and the loop that answers.

Each chapter calls the product as a user would; nothing here knows more than the public API.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from rich.console import Console

from autovision import runtime
from autovision.api import AutoVision
from autovision.console import SearchProgress
from autovision.controller import Event
from autovision.dataset import importer, manifest
from autovision.dataset.importer import SourceImage
from autovision.demo import plant
from autovision.demo.plant import POLY_LABELLED, Cells
from autovision.demo.result import (
    DemoResult,
    DriftWindow,
    Example,
    Outcomes,
    Prediction,
    Requests,
    Side,
    Stage,
)
from autovision.demo.traffic import Traffic
from autovision.errors import AutoVisionError, InvalidInput
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.deployments import DriftReport, RetrainingPolicy
from autovision.registry.evaluate import Predictions, evaluate_subgroups, predictions
from autovision.report.search_view import SearchView
from autovision.serving.client import Client
from autovision.serving.deploy import ServerHandle
from autovision.space import load_space
from autovision.store import keys
from autovision.store.protocol import Store

DATASET = "solar"
HELD_OUT = "solar-held-out"
DEPLOYMENT = "solar"
_EXAMPLES = 12
_CREDIT = (
    "Images: ELPV data set, Buerhop-Lutz et al. 2018 and Deitsch et al. 2019, CC BY-NC-SA 4.0, "
    "from the PyPI package elpv-dataset."
)


def run_demo(store: str | Path, *, seed: int, budget_s: float, console: Console) -> DemoResult:
    """Tell the whole story with real images, searches, requests and decisions.

    Args:
        store: folder or URI; what earlier runs left there is continued, not repeated.
        budget_s: wall seconds of each of the two searches.

    Raises:
        AutoVisionError: a stage could not be done; what was done before it is in the store.
    """
    if not 0 < budget_s < float("inf"):
        raise InvalidInput(
            f"budget of {budget_s:g} s: each search needs a finite time above 0; try --budget-s 120"
        )
    with runtime.connected():
        return Story(AutoVision(store), seed, budget_s, console).tell()


@dataclass
class Story:
    """The demo in progress."""

    av: AutoVision
    seed: int
    budget_s: float
    console: Console
    stages: list[Stage] = field(default_factory=list)
    drift: list[DriftWindow] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _started_at: datetime = field(default_factory=now)

    def tell(self) -> DemoResult:
        cells = plant.share_out(self.seed)
        version = self._import(cells)
        self._search_and_promote()
        with self._serve() as server, Client(server.url) as client:
            traffic = Traffic(client)
            self._mono_traffic(server, traffic, cells)
            sent = self._poly_traffic(server, traffic, cells)
            labelled = self._late_labels(client, sent)
            self._re_search(traffic, cells)
        return self._report(cells, version, traffic, labelled)

    # -------------------------------------------------------------------------------------------- chapters

    def _import(self, cells: Cells) -> DatasetVersion:
        with self._stage("import") as done:
            version = importer.import_images(
                self.store, DATASET, cells.development, seed=self.seed, positive_class="defective"
            )
            test = {row.source for row in manifest.read(self.store, version) if row.split == Split.TEST}
            mono_test = [cell for cell in cells.development if cell.shown in test]
            importer.import_images(
                self.store,
                HELD_OUT,
                plant.held_out(cells, mono_test),
                seed=self.seed,
                positive_class="defective",
            )
            problems = f", {sum(version.problem_counts.values())} problems" if version.problem_counts else ""
            done(f"{version.id}: {version.n} mono cells{problems}")
        return version

    def _search_and_promote(self) -> None:
        policy = RetrainingPolicy(
            window=100, min_labels=100, volume_labels=None, budget_s=self.budget_s, subgroup="cell_type"
        )
        space = load_space("demo")
        self.av.create_deployment(DEPLOYMENT, DATASET, space, policy)
        with self._stage("search") as done, self._progress() as progress:
            state = self.av.search(
                f"{DATASET}@1",
                space=space,
                budget_s=self.budget_s,
                seed=self.seed,
                deployment=DEPLOYMENT,
                on_progress=progress.update,
            )
            done(f"{state.trials} trials, {state.model}")
        with self._stage("promote") as done:
            done("; ".join(event.text for event in self._turn()))

    @contextmanager
    def _serve(self) -> Iterator[ServerHandle]:
        with self._stage("serve") as done:
            server = self.av.serve(DEPLOYMENT, port=0, cpus=0)
            done(f"{server.url}/v1/predict")
        with server:
            yield server

    def _mono_traffic(self, server: ServerHandle, traffic: Traffic, cells: Cells) -> None:
        with self._stage("mono traffic") as done:
            answered = traffic.send(cells.mono_traffic)
            done(f"{len(answered)} of {len(cells.mono_traffic)} mono cells answered")
        self._watch(server, "mono")

    def _poly_traffic(
        self, server: ServerHandle, traffic: Traffic, cells: Cells
    ) -> list[tuple[str, SourceImage]]:
        with self._stage("poly traffic") as done:
            answered = traffic.send(cells.poly_traffic)
            done(f"{len(answered)} of {len(cells.poly_traffic)} poly cells answered")
        self._watch(server, "poly")
        return answered

    def _watch(self, server: ServerHandle, cell_type: str) -> None:
        with self._stage("monitor") as done:
            server.flush()
            events = self._turn()
            for event in events:
                if isinstance(event.record, DriftReport):
                    self.drift.append(DriftWindow(cell_type=cell_type, report=event.record))
            done("; ".join(event.text for event in events))

    def _late_labels(self, client: Client, sent: list[tuple[str, SourceImage]]) -> int:
        with self._stage("late labels") as done:
            chosen = random.Random(self.seed).sample(sent, min(POLY_LABELLED, len(sent)))
            for request_id, cell in chosen:
                client.feedback(request_id, cell.label, annotator="inspector", confidence=cell.confidence)
            done(f"labels for {len(chosen)} of {len(sent)} captured poly cells")
        return len(chosen)

    def _re_search(self, traffic: Traffic, cells: Cells) -> None:
        with self._stage("decide to search again") as done:
            done("; ".join(event.text for event in self._turn()))
        progress = self._progress()
        steps = self.av.controller(on_progress=progress.update, seed=self.seed).step()
        with self._stage("re-search") as done:
            with progress:
                event = next(steps, None)
            if event is None or event.stage != "search":
                raise AutoVisionError(
                    f"the loop did not search again: {event.text if event else 'no decision led to a search'}; "
                    f"`autovision controller why {DEPLOYMENT} --store {self.store.uri}` tells the reasons"
                )
            done(event.text)
        with (
            self._stage("promote without a pause") as done,
            traffic.background(cells.poly_traffic, per_second=5),
        ):
            texts = [event.text for event in steps]
            champion = self.av.model(DEPLOYMENT).id
            answers = traffic.wait_for(champion, cells.poly_traffic[0])
            done("; ".join(texts) + f"; {champion} {'answers' if answers else 'does not answer yet'}")

    # ---------------------------------------------------------------------------------------------- report

    def _report(self, cells: Cells, version: DatasetVersion, traffic: Traffic, labelled: int) -> DemoResult:
        with self._stage("evaluate") as done:
            searches = self._searches()
            models = [search.state.model for search in searches if search.state.model]
            held_out = self.av.dataset(HELD_OUT)
            champion = self.av.model(DEPLOYMENT).id
            found = {
                model: predictions(self.store, model, held_out, Split.TEST)
                for model in dict.fromkeys([models[0], champion])
            }
            before, after = (self._side(model, found[model], held_out) for model in (models[0], champion))
            done(f"both models on {held_out.n} held-out cells")
        p50, p95 = np.percentile(traffic.latencies_ms or [0.0], [50, 95])
        return DemoResult(
            seed=self.seed,
            budget_s=self.budget_s,
            store=self.store.uri,
            started_at=self._started_at,
            stages=tuple(self.stages),
            parts=plant.parts(cells, version, labelled),
            searches=tuple(searches),
            before=before,
            after=after,
            outcomes=_outcomes(found[before.model.id], found[after.model.id]),
            drift=tuple(self.drift),
            decisions=tuple(self.av.decisions(DEPLOYMENT)),
            requests=Requests(
                sent=traffic.sent,
                failed=traffic.failed,
                during_promotion=traffic.during_promotion,
                latency_p50_ms=float(p50),
                latency_p95_ms=float(p95),
            ),
            examples=_examples(self.store, found[before.model.id], found[after.model.id], before, self.seed),
            image_credit=_CREDIT,
        )

    def _searches(self) -> list[SearchView]:
        of = [(r, s) for r, s in self.av.searches() if r.deployment == DEPLOYMENT]
        titles = ["First search", "Second search"]
        return [
            SearchView(title=title, request=request, state=state, trials=tuple(self.av.trials(request.id)))
            for title, (request, state) in zip(titles, of, strict=False)
        ]

    def _side(self, model: str, found: Predictions, held_out: DatasetVersion) -> Side:
        version = self.av.model(model)
        by_type = evaluate_subgroups(
            found, version.classes, version.positive_class, dataset=held_out.id, split=Split.TEST
        )
        return Side(model=version, mono=by_type["test:cell_type=mono"], poly=by_type["test:cell_type=poly"])

    # --------------------------------------------------------------------------------------------- helpers

    @property
    def store(self) -> Store:
        return self.av.store

    def _turn(self) -> list[Event]:
        """One turn of the loop, without searching."""
        return list(self.av.controller(seed=self.seed).step_without_search())

    @contextmanager
    def _stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a stage, and say what came out of it."""
        began, details = time.monotonic(), [""]
        self.console.print(f"[bold]{len(self.stages) + 1:>2}. {name}[/bold]")

        def done(detail: str) -> None:
            details[0] = detail

        yield done
        seconds = time.monotonic() - began
        self.stages.append(Stage(name=name, began_s=began - self._began, seconds=seconds, detail=details[0]))
        self.console.print(f"    {details[0]}  ({seconds:.1f} s)", markup=False, highlight=False)

    def _progress(self) -> SearchProgress:
        return SearchProgress(self.budget_s, self.console, "accuracy")


def _outcomes(before: Predictions, after: Predictions) -> dict[str, Outcomes]:
    right = [found.decided.argmax(1) == found.labels for found in (before, after)]
    outcomes = {}
    for cell_type, mask in before.groups("cell_type").items():
        old, new = right[0][mask], right[1][mask]
        outcomes[cell_type] = Outcomes(
            both_right=int((old & new).sum()),
            fixed=int((~old & new).sum()),
            broken=int((old & ~new).sum()),
            both_wrong=int((~old & ~new).sum()),
        )
    return outcomes


def _examples(
    store: Store, before: Predictions, after: Predictions, side: Side, seed: int
) -> tuple[Example, ...]:
    """Held-out cells drawn at random, two thirds of them poly: what they are is not chosen by how they came out."""
    rng = np.random.default_rng(seed)
    types = np.array(before.metadata["cell_type"])
    picks = [
        *rng.choice(np.flatnonzero(types == "poly"), 2 * _EXAMPLES // 3, replace=False),
        *rng.choice(np.flatnonzero(types == "mono"), _EXAMPLES // 3, replace=False),
    ]
    classes = side.model.classes

    def answer(found: Predictions, at: int) -> Prediction:
        best = int(found.decided[at].argmax())
        return Prediction(label=classes[best], probability=float(found.probabilities[at, best]))

    return tuple(
        Example(
            image=store.get(keys.image(before.images[at])).data,
            cell_type=str(types[at]),
            truth=classes[before.labels[at]],
            before=answer(before, at),
            after=answer(after, at),
        )
        for at in picks
    )
