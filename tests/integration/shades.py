"""A model of shades of grey that needs no network, for servers on real Ray, and callers of it."""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from ray import cloudpickle

from autovision.errors import InvalidImage, InvalidInput
from autovision.records.deployments import Deployment
from autovision.records.models import Lineage, ModelVersion, Preprocessing
from autovision.serving.client import Client
from autovision.store import keys, open_store, records
from autovision.store.protocol import Store

CLASSES = ("bright", "dark")
AT = datetime(2026, 3, 1, tzinfo=UTC)

# Replicas cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Judged:
    label: str
    probabilities: dict[str, float]
    embedding: np.ndarray


class Shades:
    """A model that says `bright` above middle grey; one whose name begins with `inverse` the opposite, and one whose
    name begins with `failing` nothing at all."""

    def __init__(self, model: ModelVersion) -> None:
        self.model = model

    def predict(self, images: Sequence[bytes]) -> list[Judged | InvalidImage]:
        if self.model.id.startswith("failing"):
            raise RuntimeError("this model fails on every image")
        return [self._judge(data) for data in images]

    def _judge(self, data: bytes) -> Judged | InvalidImage:
        try:
            with Image.open(io.BytesIO(data)) as image:
                level = float(np.asarray(image.convert("L"), dtype=np.float32).mean()) / 255
        except UnidentifiedImageError:
            return InvalidImage()
        bright = 1 - level if self.model.id.startswith("inverse") else level
        return Judged(
            "bright" if bright > 0.5 else "dark",
            {"bright": bright, "dark": 1 - bright},
            np.array([level, bright], np.float32),
        )


def load(store: Store, model_id: str) -> Shades:
    """Takes a while, as a real one does."""
    version = records.read(store, keys.model(model_id), ModelVersion)
    time.sleep(0.2)
    if model_id.startswith("broken"):
        raise InvalidInput(f"the weights of {model_id!r} are damaged; restore them")
    return Shades(version)


def add_model(store: Store, model_id: str) -> None:
    records.create(store, keys.model(model_id), version_of(model_id))


def version_of(model_id: str) -> ModelVersion:
    lineage = Lineage(
        search="s",
        trial="t",
        dataset="shades@1",
        dataset_digest="0" * 64,
        backbone="none",
        backbone_weights_digest="0" * 64,
        backbone_weights_source="none",
        backbone_weights_license="none",
        space_fingerprint="none",
        config={},
        seed=0,
        code_version="test",
        packages={},
        parents=(),
    )
    return ModelVersion(
        id=model_id,
        dataset="shades",
        classes=CLASSES,
        positive_class="dark",
        preprocessing=Preprocessing(
            height=8, width=8, crop_pct=1, interpolation="bilinear", mean=(0, 0, 0), std=(1, 1, 1)
        ),
        temperature=1.0,
        precision="f32",
        metrics={},
        files={},
        size_bytes=0,
        parameters=0,
        lineage=lineage,
        created_at=AT,
    )


def promote(store: Store, name: str, model_id: str) -> None:
    records.update(store, keys.deployment(name), Deployment, lambda record: record.with_(model=model_id))


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (16, 16), level).save(buffer, "PNG")
    return buffer.getvalue()


def expected_label(model_id: str, level: int) -> str:
    return "bright" if (level > 127) != model_id.startswith("inverse") else "dark"


def until(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(0.05)


def shades_store(folder: Path) -> Store:
    """A store with some models, and a deployment `shades` that has none yet."""
    store = open_store(folder)
    for model_id in ("shades-1", "inverse-2", "broken-3", "failing-4"):
        add_model(store, model_id)
    record = Deployment(name="shades", dataset="shades", model=None, space={}, created_at=AT, updated_at=AT)
    records.create(store, keys.deployment("shades"), record)
    return store


@dataclass
class Traffic:
    """What one sender saw."""

    answers: list[tuple[int, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def send(url: str, stop: Event, seed: int) -> Traffic:
    """Predict without pause and without any second try until told to stop."""
    rng, traffic = random.Random(seed), Traffic()
    with Client(url, retry_for_s=0.0) as client:
        while not stop.is_set():
            level = rng.choice([0, 40, 90, 160, 210, 255])
            try:
                traffic.answers.append((level, client.predict(png(level), metadata={"sender": str(seed)})))
            except Exception as error:  # noqa: BLE001 - any failure at all is what the test looks for
                traffic.failures.append(repr(error))
    return traffic


def under_load(url: str, act: Callable[[], Any]) -> list[tuple[int, Any]]:
    """Do something while four senders predict; what they were answered, none of which may have failed."""
    stop = Event()
    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, url, stop, seed) for seed in range(4)]
        try:
            act()
            time.sleep(0.3)
        finally:
            stop.set()
    traffic = [sender.result() for sender in senders]
    assert [failure for part in traffic for failure in part.failures] == []
    return [answer for part in traffic for answer in part.answers]
