"""What labels tell of a deployment, and what need not be read again to know it.

Nothing that is decided on is remembered but counts: whoever acts on them looks afresh.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b

from autovision.dataset import manifest
from autovision.labelling.consensus import LIKELY, consensus
from autovision.records.datasets import DatasetVersion, Labels, labels_of
from autovision.records.deployments import Capture, Deployment, Label
from autovision.retraining.accuracy import Share
from autovision.retraining.alike import Alike
from autovision.retraining.join import Joined, join
from autovision.store import captures, keys, labels
from autovision.store.protocol import Store


@dataclass(frozen=True)
class Labelled:
    """What the labels of a deployment come to."""

    labels: int
    """of images that no search has seen, nor one that is nearly the same and labelled so"""
    per_class: Mapping[str, int]
    measured: Share
    """answers of the current model to requests since its last re-search, by their labels: the latest of each image, and
    of images that are nearly the same and labelled so; of labels that are less likely right than not, none"""
    joined: Joined | None
    """what a search would learn from; None: this is remembered"""
    alike: int = 0
    """labels that are none of `labels`, since another image that is nearly the same is labelled so"""


@dataclass(frozen=True)
class _Remembered:
    question: tuple[object, ...]
    """what else the answer depends on"""
    labels: bytes
    """digest of the labels' keys: no label ever changes"""
    files: frozenset[str]
    """of captures that were read"""
    missing: frozenset[str]
    """labelled requests that were in none of them"""
    answer: Labelled


@dataclass
class Memory:
    """Remembers from look to look. Listing what is stored may take a twentieth of the time, or what was saved up of it.

    So many labels that it would take more are looked at less often, one deployment after the other.
    """

    clock: Callable[[], float] = time.monotonic
    share: float = 0.05
    most_saved_s: float = 2.0
    _seen: dict[str, _Remembered] = field(default_factory=dict)
    _alike: Alike = field(default_factory=Alike)
    _saved_s: float = 2.0
    _saved_at: float | None = None

    def look(
        self,
        store: Store,
        deployment: Deployment,
        searched: DatasetVersion,
        *,
        since: datetime | None,
        afresh: bool = False,
    ) -> Labelled:
        """What labels tell, of images that are not in `searched` and of answers to requests after `since`.

        Args:
            afresh: read everything, and remember it, so that the answer has what a search would learn from.
        """
        question = deployment.model, searched.id, searched.digest, since
        before = self._seen.get(deployment.name)
        if before is not None and (afresh or before.question != question):
            before = None
        if before is not None and not self._may_list():
            return before.answer
        began = self.clock()
        said = _digest(store.list(keys.labels(deployment.name)))
        files = frozenset(store.list(keys.captures(deployment.name)))
        if before is not None and before.labels == said:
            added = files - before.files
            if not (before.missing and any(self._holds(store, key, before.missing) for key in added)):
                self._spend(began)
                self._remember(deployment.name, question, said, files, before.missing, before.answer)
                return before.answer
        answer = _read(store, deployment, searched, since, self._alike)
        assert answer.joined is not None
        missing = frozenset(answer.joined.unmatched)
        self._remember(deployment.name, question, said, files, missing, answer)
        self._spend(began)
        return answer

    def _remember(
        self,
        name: str,
        question: tuple[object, ...],
        said: bytes,
        files: frozenset[str],
        missing: frozenset[str],
        answer: Labelled,
    ) -> None:
        # Not the captures: with their embeddings those of many deployments would fill the memory.
        slim = replace(answer, joined=None)
        self._seen[name] = _Remembered(question, said, files, missing, slim)

    def _holds(self, store: Store, key: str, requests: frozenset[str]) -> bool:
        try:
            return any(capture.request_id in requests for capture in captures.read_file(store, key))
        except captures.Unreadable:
            return False

    def _may_list(self) -> bool:
        at = self.clock()
        gained = 0.0 if self._saved_at is None else (at - self._saved_at) * self.share
        self._saved_s, self._saved_at = min(self._saved_s + gained, self.most_saved_s), at
        return self._saved_s > 0

    def _spend(self, began: float) -> None:
        self._saved_s -= self.clock() - began


def _read(
    store: Store, deployment: Deployment, searched: DatasetVersion, since: datetime | None, alike: Alike
) -> Labelled:
    agreed = consensus(labels.read(store, deployment.name)).agreed
    if not agreed:
        return Labelled(0, {}, Share(0, 0), Joined((), (), 0, 0, 0, 0))
    rows = manifest.read(store, searched)
    known = {row.image for row in rows} | set(searched.left_out)
    # Of months of requests those that are labelled are few, and embeddings, the most of each, are of no use here.
    labelled = {
        each.request_id: each.model_copy(update={"embedding": ()})
        for each in captures.each(store, deployment.name)
        if each.request_id in agreed
    }
    found = sorted(labelled.values(), key=lambda each: (each.received_at, each.request_id))
    seen = (capture if capture.image in known else _as_kept(store, capture) for capture in found)
    joined = join(seen, agreed, known_images=known)
    families = alike.families(store, deployment.name, found, rows, searched)
    searched_before = {_shown(families, row.image, row.label) for row in rows if row.image in families}
    new = {_shown(families, capture.image, label.label) for capture, label in joined.rows} - searched_before
    return Labelled(
        labels=len(new),
        per_class=Counter(name for _, names in new for name in names),
        measured=_measured(found, agreed, deployment.model, since, families),
        joined=joined,
        alike=len(joined.rows) - len(new),
    )


_Shown = tuple[str, frozenset[str]]
"""an image, or those that are nearly the same, and what it is labelled"""


def _shown(families: Mapping[str, str], image: str, label: Labels) -> _Shown:
    return families.get(image, image), frozenset(labels_of(label))


def _measured(
    found: list[Capture],
    agreed: Mapping[str, Label],
    model: str | None,
    since: datetime | None,
    families: Mapping[str, str],
) -> Share:
    # The same image a hundred times is one image.
    latest = {
        capture.image: capture
        for capture in found
        if capture.model == model
        and (since is None or capture.received_at > since)
        and agreed[capture.request_id].confidence >= LIKELY
    }
    right: dict[tuple[_Shown, _Shown], bool] = {}
    for capture in latest.values():
        label = agreed[capture.request_id].label
        # What is nearly the same may be answered otherwise, and then both answers count.
        both = _shown(families, capture.image, label), _shown(families, capture.image, capture.label)
        right[both] = both[0] == both[1]
    return Share(len(right), sum(right.values()))


def _as_kept(store: Store, capture: Capture) -> Capture:
    """A capture as what is left of it: a label may come when the image was deleted already."""
    if not capture.pixels or captures.has_image(store, capture):
        return capture
    return capture.model_copy(update={"pixels": False})


def _digest(names: Iterator[str]) -> bytes:
    digest = blake2b(digest_size=16)
    for name in names:
        digest.update(name.encode() + b"\n")
    return digest.digest()
