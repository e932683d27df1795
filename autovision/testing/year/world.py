"""What arrives: recorded images of several kinds, in shares that change over the year."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
from PIL import Image

from autovision.errors import InvalidInput
from autovision.monitoring.detectors.permutation import Floats
from autovision.records.base import digest_of

START = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("mono", "mono-glare", "mono-blur", "poly", "poly-blur")
"""the first is what the deployment begins with"""
CLASSES = ("defective", "functional")
_SIDE = 16
"""pixels of the stand-ins for images, which are noise: what is learnt are recorded embeddings"""


@dataclass(frozen=True)
class Images:
    """Recorded images of a kind.

    Attributes:
        embeddings: (N, D)
        truth: (N,) indices into `CLASSES`.
        cells: (N,) which object each one shows; kinds may show the same ones.
    """

    embeddings: Floats
    truth: np.ndarray
    cells: np.ndarray

    def of(self, cells: np.ndarray) -> Images:
        """Those that show some objects."""
        rows = np.isin(self.cells, cells)
        return Images(self.embeddings[rows], self.truth[rows], self.cells[rows])


@dataclass(frozen=True)
class Days:
    """Days from `first` on, and before `last`, counted from the first of the year."""

    first: int
    last: int

    def __contains__(self, day: int) -> bool:
        return self.first <= day < self.last


@dataclass(frozen=True)
class Plan:
    """What happens in the year."""

    days: int = 365
    glare: float = 0.3
    """share of over-exposed images among those of mono cells at the height of summer; none in winter"""
    glare_from: int = 75
    sudden: int = 120
    """the day from which on half of all cells are poly"""
    poly: float = 0.5
    slow: Days = Days(200, 300)
    """in which the lens gets dirty"""
    blur: float = 0.5
    """share of blurred images from then on"""
    store_down: Days = Days(205, 208)
    ray_down: Days = Days(122, 127)
    controller_down: Days = Days(250, 260)

    def shares(self, day: int) -> dict[str, float]:
        """kind -> its share of the traffic of a day; they sum to 1."""
        season = max(0.0, math.sin(2 * math.pi * (day - self.glare_from) / 365))
        poly = self.poly if day >= self.sudden else 0.0
        worn = min(max((day - self.slow.first) / (self.slow.last - self.slow.first), 0.0), 1.0)
        blur, glare = self.blur * worn, self.glare * season
        mono = 1 - poly
        shares = (
            mono * (1 - blur) * (1 - glare),
            mono * (1 - blur) * glare,
            mono * blur,
            poly * (1 - blur),
            poly * blur,
        )
        return dict(zip(KINDS, shares, strict=True))


@dataclass(frozen=True)
class Arrived:
    """An image as a caller sends it."""

    data: bytes
    digest: str
    """SHA-256 of `data`"""
    kind: str
    embedding: Floats
    truth: str


@dataclass
class World:
    """Objects are divided: some are in the first data set, some are sent, and of some nobody ever hears but the judge.

    Raises:
        InvalidInput: a kind is missing, or there are too few images of the first one.
    """

    kinds: Mapping[str, Images]
    plan: Plan = Plan()
    seed: int = 0
    first: int = 300
    """objects of the first kind in the first data set"""
    judged: float = 0.3
    """share of all objects that only the judge sees"""
    by_digest: dict[str, Arrived] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if missing := set(KINDS) - set(self.kinds):
            raise InvalidInput(f"there are no images of {', '.join(sorted(missing))}; record some")
        rng = np.random.default_rng([self.seed, 1])
        every = rng.permutation(np.unique(np.concatenate([each.cells for each in self.kinds.values()])))
        judged, rest = np.split(every, [round(self.judged * len(every))])
        begins = rest[np.isin(rest, self.kinds[KINDS[0]].cells)]
        if len(begins) < 2 * self.first:
            raise InvalidInput(
                f"{len(begins)} images of {KINDS[0]} are too few to begin with {self.first}; record more"
            )
        own = begins[: self.first]
        sent = rest[~np.isin(rest, own)]
        self.held_out = {name: self.kinds[name].of(judged) for name in KINDS}
        self.sent = {name: self.kinds[name].of(sent) for name in KINDS}
        self.begins = self.kinds[KINDS[0]].of(own)
        self._rng = np.random.default_rng([self.seed, 2])

    def first_images(self) -> list[Arrived]:
        """Of the data set that the year begins with."""
        return [self._image(KINDS[0], self.begins, row) for row in range(len(self.begins.truth))]

    def arrivals(self, day: int, n: int) -> list[Arrived]:
        """`n` images, drawn by the shares of the day."""
        shares = self.plan.shares(day)
        drawn = self._rng.choice(len(KINDS), size=n, p=[shares[name] for name in KINDS])
        found = []
        for kind in (KINDS[number] for number in drawn):
            images = self.sent[kind]
            found.append(self._image(kind, images, int(self._rng.integers(len(images.truth)))))
        return found

    def _image(self, kind: str, images: Images, row: int) -> Arrived:
        # The same object again is the same image, so that no label is learnt from twice.
        rng = np.random.default_rng(int(digest_of([kind, int(images.cells[row])])[:16], 16))
        pixels = rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG", compress_level=0)
        data = sink.getvalue()
        digest = sha256(data).hexdigest()
        truth = CLASSES[int(images.truth[row])]
        return self.by_digest.setdefault(digest, Arrived(data, digest, kind, images.embeddings[row], truth))


def at(day: int, hours: float) -> datetime:
    """A moment of the year."""
    return START + timedelta(days=day, hours=hours)
