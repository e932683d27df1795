"""The year: a clock that is set drives the real controller over what arrives, what people say, and what breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from unittest.mock import patch

import numpy as np

from autovision.controller import Controller
from autovision.dataset import importer
from autovision.dataset.importer import SourceImage
from autovision.errors import StoreUnavailable
from autovision.promotion import later, refused
from autovision.records.deployments import Capture, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.models import ModelVersion
from autovision.records.searches import SearchRequest
from autovision.registry import deployments
from autovision.retraining.evaluator import Evaluator
from autovision.retraining.memory import Memory
from autovision.search import requests
from autovision.store import captures, keys, labels
from autovision.store.protocol import Store
from autovision.testing.clock import FakeClock
from autovision.testing.year.models import Lab, Recorded
from autovision.testing.year.outages import OutageStore
from autovision.testing.year.people import People
from autovision.testing.year.world import CLASSES, START, Arrived, World, at

DEPLOYMENT = "cells"
DATASET = "cells"
NIGHT, BATCHES = 2.0, (8.0, 16.0)
"""hours at which the controller turns; before it does at the latter, requests have come in"""
_MOST_TURNS = 20
_TICK = timedelta(milliseconds=1)


@dataclass
class Year:
    """One deployment under one policy; `live` goes through the year."""

    world: World
    policy: RetrainingPolicy
    people: People = field(default_factory=People)
    per_day: int = 40
    """requests"""
    seed: int = 0
    later_looks: bool = True
    """whether refused challengers are looked at again"""
    labels_every: int = 3
    """days after which words that have come meanwhile are stored: the loop reads all labels when there are new ones"""

    def __post_init__(self) -> None:
        self.time = FakeClock(START - timedelta(days=1))
        self.store = OutageStore()
        self.lab = Lab(self.store, self.world, self.clock)
        self.served: list[str] = []
        """the champion at the end of each day"""
        self.lost = 0
        """requests whose capture could not be stored"""
        self.most_at_once = 0
        """searches that ran at the same time"""
        self._controller: Controller | None = None

    def clock(self) -> datetime:
        """No two looks see the same time: ids are made of it."""
        return self.time.advance(_TICK.total_seconds())

    def live(self, day_over: Callable[[int], None] = lambda day: None) -> None:
        """From the first model to the last day."""
        with _parsed_once(), patch.object(later, "answers", self._answers), ExitStack() as others:
            if not self.later_looks:
                others.enter_context(patch.object(refused, "candidates", lambda *_: []))
            self._begin()
            for day in range(self.world.plan.days):
                self._day(day)
                self.served.append(self._champion())
                day_over(day)

    def _begin(self) -> None:
        """The first data set, and the first search."""
        sources = []
        for image in self.world.first_images():
            self.store.put_immutable(keys.image(image.digest), image.data)
            sources.append(SourceImage(digest=image.digest, label=image.truth, source="first"))
        version = importer.import_images(
            self.store, DATASET, sources, seed=self.seed, near_bits=-1, clock=self.clock
        )
        deployments.create(self.store, DEPLOYMENT, DATASET, Recorded().to_json(), self.policy)
        # Its images are stand-ins, of which no corrupted ones can be made.
        deployments.set_gate_policy(self.store, DEPLOYMENT, GatePolicy(robustness_margin=None))
        request = SearchRequest(
            dataset=DATASET,
            dataset_version=version.version,
            dataset_digest=version.digest,
            space=Recorded().to_json(),
            budget_s=self.policy.budget_s,
            deployment=DEPLOYMENT,
        )
        requests.submit(self.store, request, self.clock())
        self._turn()

    def _day(self, day: int) -> None:
        plan = self.world.plan
        self.store.down, self.lab.down = day in plan.store_down, day in plan.ray_down
        if day in plan.controller_down:
            self._controller = None  # the one that comes afterwards remembers nothing
        idle = day in plan.controller_down
        self._wait_until(at(day, NIGHT))
        if not idle:
            self._turn()
        for number, hours in enumerate(BATCHES):
            self._wait_until(at(day, hours))
            share = self.per_day // len(BATCHES) + (number < self.per_day % len(BATCHES))
            self._serve(self.world.arrivals(day, share))
            if number == 0 and day % self.labels_every == 0:
                self._label()
            if not idle:
                self._turn()

    def _wait_until(self, moment: datetime) -> None:
        self.time.set(max(moment, self.time()))

    def _turn(self) -> None:
        """Passes until one does nothing; what a search takes goes by meanwhile."""
        if self._controller is None:
            self._controller = self._new_controller()
        for _ in range(_MOST_TURNS):
            done = list(self._controller.step())
            self.most_at_once = max(self.most_at_once, len(self.lab.searches))
            ends = self.lab.ends_at
            if ends is not None and not self.store.down:
                self._wait_until(ends)
            elif not done:
                return

    def _new_controller(self) -> Controller:
        controller = Controller(
            self.store, clock=self.clock, lease_clock=self.clock, seed=self.seed, fleet=self.lab
        )
        # What it takes to look at labels is measured against the time that goes by here: nothing.
        memory = Memory(clock=lambda: self.time().timestamp())
        controller._evaluator = Evaluator(self.clock, memory=memory)
        return controller

    def _champion(self) -> str:
        model = deployments.get(self.store, DEPLOYMENT).model
        assert model is not None, "the first model is promoted whatever it is like"
        return model

    def _serve(self, arrived: list[Arrived]) -> None:
        model = self._champion()
        said = self.lab.answering(model).probabilities(np.stack([each.embedding for each in arrived]))
        taken = [
            self._capture(model, image, probabilities)
            for image, probabilities in zip(arrived, said, strict=True)
        ]
        try:
            for capture, image in zip(taken, arrived, strict=True):
                self.store.put_immutable(captures.image_key(capture), image.data)
            captures.append(self.store, DEPLOYMENT, taken, at=self.clock())
        except StoreUnavailable:
            self.lost += len(taken)
            return
        for capture, image in zip(taken, arrived, strict=True):
            self.people.see(capture.request_id, image.truth, capture.received_at)

    def _capture(self, model: str, image: Arrived, probabilities: np.ndarray) -> Capture:
        received = self.clock()
        return Capture(
            request_id=keys.derived_id(received, image.digest),
            deployment=DEPLOYMENT,
            model=model,
            received_at=received,
            latency_ms=1.0,
            image=image.digest,
            image_bytes=len(image.data),
            label=CLASSES[int(probabilities.argmax())],
            probabilities=dict(zip(CLASSES, probabilities.tolist(), strict=True)),
            embedding=tuple(image.embedding.astype(np.float32).tolist()),
        )

    def _answers(
        self, store: Store, model: ModelVersion, images: Sequence[bytes], classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a model says of images: in place of a network that sees them."""
        arrived = [self.world.by_digest[sha256(data).hexdigest()] for data in images]
        said = self.lab.answering(model.id).probabilities(np.stack([each.embedding for each in arrived]))
        return later.in_columns(model, said, classes)

    def _label(self) -> None:
        words = self.people.due(self.time())
        for number, word in enumerate(words):
            try:
                # It counts as received when it is stored: whoever looks at what came since then misses none.
                labels.add(self.store, DEPLOYMENT, word.model_copy(update={"received_at": self.clock()}))
            except StoreUnavailable:
                self.people.again(words[number:], self.time() + timedelta(hours=12))
                return


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Files of captures never change here: each is read once, which gives the same in a fraction of the time."""
    known: dict[tuple[str, str], list[Capture]] = {}

    def read(store: Store, key: str, real: Callable[[Store, str], list[Capture]]) -> list[Capture]:
        which = store.uri, key
        if which not in known:
            known[which] = real(store, key)
        return known[which]

    with patch.object(captures, "read_file", partial(read, real=captures.read_file)):
        yield
