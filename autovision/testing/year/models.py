"""What a search gives: a small model, really fitted to what is known when it begins, for its whole budget."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from safetensors.numpy import load, save
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from autovision.calibration import fit_temperature
from autovision.dataset import catalog, manifest
from autovision.dataset.manifest import Row
from autovision.errors import StoreUnavailable
from autovision.model import bundle
from autovision.model.predictor import softmax
from autovision.model.version import read_file, read_version
from autovision.monitoring.detectors.permutation import Floats
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.models import Lineage, ModelVersion, Preprocessing
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.registry import deployments
from autovision.registry.evaluate import Predictions, store_predictions
from autovision.registry.searches import all_searches
from autovision.search.fleet import Fleet, News
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import Store
from autovision.testing.year.world import CLASSES, World

PENALTIES = (3e-4, 3e-3, 3e-2)
"""inverse strengths of regularisation that a search tries"""
_CONFIG = TrialConfig(backbone="test_resnet", weights="store:recorded", resolution=64)
"""its weights cannot be had: near-duplicates are not looked for in images that are noise"""
_FAILS_AFTER_S = 10.0


class Recorded(Space):
    """What the lab is asked to search. It fits regressions all the same."""

    backbone = _CONFIG.backbone
    weights = _CONFIG.weights
    resolution = _CONFIG.resolution


@dataclass(frozen=True)
class Answering:
    """A linear model of embeddings."""

    mean: Floats
    scale: Floats
    weights: Floats
    """(D,)"""
    bias: float
    temperature: float = 1.0

    @classmethod
    def fit(
        cls, embeddings: Floats, labels: np.ndarray, penalty: float, weights: Floats | None = None
    ) -> Answering:
        """A logistic regression on standardised embeddings, weighted if (N,) weights are given."""
        scaler = StandardScaler().fit(embeddings)
        head = LogisticRegression(C=penalty, max_iter=1000)
        head.fit(scaler.transform(embeddings), labels, sample_weight=weights)
        return cls(scaler.mean_, scaler.scale_, head.coef_[0], float(head.intercept_[0]))

    @classmethod
    def best_of(cls, embeddings: Floats, labels: np.ndarray, held: tuple[Floats, np.ndarray]) -> Answering:
        """The penalty whose model answers `held` with the least log loss."""
        found = [cls.fit(embeddings, labels, penalty) for penalty in PENALTIES]
        rows = np.arange(len(held[1]))

        def loss(model: Answering) -> float:
            return -float(np.log(model.probabilities(held[0])[rows, held[1]] + 1e-9).mean())

        return min(found, key=loss)

    def logits(self, embeddings: Floats) -> Floats:
        z = (embeddings - self.mean) / self.scale @ self.weights + self.bias
        return np.column_stack([np.zeros_like(z), z])

    def probabilities(self, embeddings: Floats) -> Floats:
        """(N, 2) in the order of `CLASSES`."""
        return np.asarray(softmax(self.logits(embeddings) / self.temperature), np.float64)

    def accuracy(self, embeddings: Floats, truth: np.ndarray) -> float:
        return float((self.probabilities(embeddings).argmax(1) == truth).mean())

    def to_bytes(self) -> bytes:
        parts = {name: np.atleast_1d(np.asarray(value, np.float64)) for name, value in vars(self).items()}
        return bytes(save(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Answering:
        parts = load(data)
        return cls(
            parts["mean"],
            parts["scale"],
            parts["weights"],
            float(parts["bias"][0]),
            float(parts["temperature"][0]),
        )


@dataclass(frozen=True)
class Run:
    """A search from its beginning to its end."""

    search: str
    began_at: datetime
    ended_at: datetime
    spent_s: float
    model: str | None
    """None: it failed"""


class Lab(Fleet):
    """Runs the searches that wait, in place of a cluster; the controller turns it as it would turn processes.

    What it writes is what a search writes that the loop reads: its state, its model, and what models say of the test
    images. It starts whatever waits: were there two searches at once, `runs` would tell.
    """

    def __init__(self, store: Store, world: World, clock: Callable[[], datetime]) -> None:
        # Not that of the processes: there are none.
        self._store, self.world, self.clock, self.most = store, world, clock, None
        self.down = False
        """whether Ray is gone: what runs fails, and what begins fails soon"""
        self.runs: list[Run] = []
        self._going: dict[str, tuple[datetime, datetime, bool]] = {}
        """search -> when it began, when it ends, and whether it fails then"""
        self._known: dict[str, Answering] = {}

    @property
    def searches(self) -> tuple[str, ...]:
        return tuple(self._going)

    @property
    def ends_at(self) -> datetime | None:
        """When the next one ends."""
        return min((ends for _, ends, _ in self._going.values()), default=None)

    def recall(self) -> None:
        """Nothing: it is no process of the controller's."""

    def turn(self, connect: Callable[[], None]) -> Iterator[News]:
        """Take note of what has ended, and begin what waits."""
        for search, (began, ends, fails) in list(self._going.items()):
            if self.down and not fails:
                self._going[search] = began, min(ends, self.clock()), True
        with suppress(StoreUnavailable):  # the next turn tries again
            yield from self._ends()
            yield from self._begins(connect)

    def _ends(self) -> Iterator[News]:
        for search, (began, ends, fails) in list(self._going.items()):
            if ends <= self.clock():
                state = self._end(search, began, ends, fails)
                del self._going[search]
                yield News(f"search {search}: {state.error or state.model}", state, fault=fails)

    def _begins(self, connect: Callable[[], None]) -> Iterator[News]:
        for request, state in all_searches(self._store):
            if state.status is SearchStatus.QUEUED:
                connect()
                began = self.clock()
                seconds = _FAILS_AFTER_S if self.down else request.budget_s
                self._change(request.id, status=SearchStatus.RUNNING, attempt=state.attempt + 1)
                self._going[request.id] = began, began + timedelta(seconds=seconds), self.down
                yield News(f"search {request.id} begins")

    def answering(self, model_id: str) -> Answering:
        """A model by its id."""
        if model_id not in self._known:
            version = read_version(self._store, model_id)
            self._known[model_id] = Answering.from_bytes(read_file(self._store, version, bundle.WEIGHTS_FILE))
        return self._known[model_id]

    def _end(self, search: str, began: datetime, ends: datetime, fails: bool) -> SearchState:
        spent = (ends - began).total_seconds()
        if fails:
            state = self._change(search, status=SearchStatus.FAILED, spent_s=spent, error="Ray is gone")
            self.runs.append(Run(search, began, ends, spent, None))
            return state
        request = records.read(self._store, keys.search_request(search), SearchRequest)
        version = catalog.get(self._store, f"{request.dataset}@{request.dataset_version}")
        model = self._publish(request, version)
        state = self._change(
            search, status=SearchStatus.FINISHED, spent_s=spent, trials=len(PENALTIES), model=model
        )
        self.runs.append(Run(search, began, ends, spent, model))
        return state

    def _publish(self, request: SearchRequest, version: DatasetVersion) -> str:
        rows = manifest.read(self._store, version)
        split = {
            name: sorted((row for row in rows if row.split == name), key=lambda row: row.image)
            for name in Split
        }
        held = self._data(split[Split.VALIDATION])
        found = Answering.best_of(*self._data(split[Split.TRAIN]), held)
        warm = fit_temperature(found.logits(held[0]).astype(np.float32), held[1])
        answering = Answering(found.mean, found.scale, found.weights, found.bias, warm)
        test = split[Split.TEST]
        files = {
            bundle.WEIGHTS_FILE: answering.to_bytes(),
            bundle.REFERENCE_FILE: bundle.reference_bytes(
                self._data([*split[Split.VALIDATION], *test])[0].astype(np.float32)
            ),
        }
        model = _version(request, version, files, warm, self.clock())
        bundle.publish(self._store, model, files)
        self._known[model.id] = answering
        champion = deployments.get(self._store, request.deployment).model if request.deployment else None
        for each in {model.id, champion or model.id}:
            said = self.answering(each).probabilities(self._data(test)[0])
            predictions = Predictions.of(test, CLASSES, said)
            store_predictions(self._store, each, version, Split.TEST, predictions)
        return model.id

    def _data(self, rows: list[Row]) -> tuple[Floats, np.ndarray]:
        """Embeddings, and labels as the data set has them."""
        embeddings = np.stack([self.world.by_digest[row.image].embedding for row in rows])
        return embeddings, np.array([CLASSES.index(row.labels[0]) for row in rows])

    def _change(self, search: str, **changes: Any) -> SearchState:
        def change(state: SearchState) -> SearchState:
            return state.with_(**changes, updated_at=self.clock())

        return records.update(self._store, keys.search_state(search), SearchState, change)


def _version(
    request: SearchRequest,
    version: DatasetVersion,
    files: dict[str, bytes],
    temperature: float,
    at: datetime,
) -> ModelVersion:
    return ModelVersion(
        id=f"{version.name}-m-{request.id[-12:]}",
        dataset=version.name,
        classes=CLASSES,
        positive_class=version.positive_class,
        preprocessing=Preprocessing(
            height=64,
            width=64,
            crop_pct=1.0,
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        temperature=temperature,
        precision="f32",
        metrics={},
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        size_bytes=sum(map(len, files.values())),
        parameters=0,
        lineage=Lineage(
            search=request.id,
            trial="regression",
            dataset=version.id,
            dataset_digest=version.digest,
            backbone=_CONFIG.backbone,
            backbone_weights_digest="",
            backbone_weights_source="recorded embeddings",
            backbone_weights_license="unknown",
            space_fingerprint="",
            config=_CONFIG.model_dump(mode="json"),
            seed=request.seed,
            code_version="",
            packages={},
            parents=(request.parent_model,) if request.parent_model else (),
        ),
        created_at=at,
    )
