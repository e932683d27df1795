"""Small real parts for the serving tests: images, model versions, and a predictor that judges brightness."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Lock
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from autovision.errors import ImageTooLarge, InvalidImage
from autovision.records.models import Lineage, ModelVersion, Preprocessing
from tests.unit.serving.worlds import World, running

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLASSES = ("bright", "dark")


def version(model_id: str) -> ModelVersion:
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
        created_at=EPOCH,
    )


@dataclass(frozen=True)
class Judged:
    label: str
    probabilities: dict[str, float]
    embedding: np.ndarray


@dataclass
class Brightness:
    """Answers `bright` above a threshold. It waits for `gate`, and breaks on a one-pixel image."""

    model: ModelVersion
    threshold: float = 0.5
    gate: Event = field(default_factory=Event)
    begun: Event = field(default_factory=Event)
    batches: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def predict(self, images: Sequence[bytes]) -> list[Judged | InvalidImage]:
        self.batches.append(len(images))
        self.begun.set()
        assert self.gate.wait(20)
        return [self._judge(data) for data in images]

    def _judge(self, data: bytes) -> Judged | InvalidImage:
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width > 1000:
                    return ImageTooLarge(f"the image is {image.width} pixels wide; at most 1000 are taken")
                pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255
        except UnidentifiedImageError:
            return InvalidImage()
        if pixels.size == 1:
            raise ZeroDivisionError("no variance in one pixel\nforged log line")
        bright = float(pixels.mean())
        label = "bright" if bright > self.threshold else "dark"
        return Judged(label, {"bright": bright, "dark": 1 - bright}, np.array([bright, 1.0], np.float32))


@dataclass
class InLanes(Brightness):
    """The same, called by several at once. Dark images wait for a gate of their own."""

    lanes: int = 2
    few: int = 2
    most: int = 2
    asks: bool = True
    """whether all threads would be quicker"""
    dark_gate: Event = field(default_factory=Event)
    at_once: int = 0
    most_at_once: int = 0
    widened: list[bool] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.dark_gate.set()

    def predict_in_lane(
        self, images: Sequence[bytes], widen: Callable[[], bool]
    ) -> list[Judged | InvalidImage]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            if len(images) == 1 and self.asks:
                self.widened.append(widen())
        try:
            found = self.predict(images)
            if any(isinstance(each, Judged) and each.label == "dark" for each in found):
                assert self.dark_gate.wait(20)
            return found
        finally:
            with self.lock:
                self.at_once -= 1


@dataclass(frozen=True)
class JudgedMarks:
    label: tuple[str, ...]
    probabilities: dict[str, float]
    embedding: np.ndarray


@dataclass
class Marks:
    """Answers `bright` above a third and `dark` below two thirds: both, or one of them."""

    model: ModelVersion

    def predict(self, images: Sequence[bytes]) -> list[JudgedMarks | InvalidImage]:
        return [self._judge(data) for data in images]

    def _judge(self, data: bytes) -> JudgedMarks:
        with Image.open(io.BytesIO(data)) as image:
            bright = float(np.asarray(image.convert("L"), dtype=np.float32).mean() / 255)
        said = {"bright": min(1.0, bright * 1.5), "dark": min(1.0, (1 - bright) * 1.5)}
        return JudgedMarks(
            tuple(name for name, p in said.items() if p > 0.5), said, np.array([bright], np.float32)
        )


@pytest.fixture
def marks() -> Marks:
    """A model that answers any number of its classes."""
    return Marks(version("marks").with_(multi_label=True, positive_class=None))


@pytest.fixture
def make_predictor() -> Callable[..., Brightness]:
    def make(model_id: str = "m1", threshold: float = 0.5) -> Brightness:
        return Brightness(version(model_id), threshold)

    return make


@pytest.fixture
def make_in_lanes() -> Callable[..., InLanes]:
    def make(model_id: str = "m1", **more: Any) -> InLanes:
        return InLanes(version(model_id), **more)

    return make


@pytest.fixture
def png() -> Callable[..., bytes]:
    """The bytes of a grey PNG image."""

    def make(level: int = 200, size: tuple[int, int] = (8, 8)) -> bytes:
        buffer = io.BytesIO()
        Image.new("L", size, level).save(buffer, "PNG")
        return buffer.getvalue()

    return make


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = EPOCH

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server of a world; its URL. It stops when the test ends."""
    with ExitStack() as stack:
        yield lambda world, **options: stack.enter_context(running(world.engine, **options))


@pytest.fixture
def world(make_predictor: Any, clock: Clock) -> World:
    return World(make_predictor, clock)


@pytest.fixture
def url(world: World, serve: Callable[..., str]) -> str:
    started = serve(world)
    world.promote("m1")
    return started


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client
