"""What is most worth looking at: disputed requests, probably wrong labels, and captures that would teach the most.

A third of the budget is for labels that are probably wrong, a quarter at most for requests on which annotators
contradict each other, the rest for captures without a label; what one part does not use goes to the others. What was
reviewed already, a captured request or an image of the data set, does not come again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from autovision.dataset import catalog, manifest
from autovision.errors import NotFound
from autovision.labelling.consensus import Consensus, consensus, latest_words
from autovision.labelling.worth import MOST, most_worth, uncertainty
from autovision.model.version import read_version
from autovision.records.base import Record
from autovision.records.datasets import Labels, spoken
from autovision.records.deployments import Capture, Deployment
from autovision.registry import deployments
from autovision.review.judged import Errors, answer_of, corrected, labelled, probable_errors
from autovision.space.config import TrialConfig
from autovision.store import captures, labels
from autovision.store.protocol import KeyNotFound, Store

Floats32 = NDArray[np.float32]


class Reason(StrEnum):
    """Why something is in the queue."""

    DISPUTED = "disputed"
    """annotators contradict each other and nothing comes out clearly, or nobody spoke but who is mostly wrong"""
    ERROR = "probable error"
    """the label is probably wrong"""
    UNSURE = "unsure"
    """there is no label, the model is not sure, and no other image of the queue would teach the same"""


class Entry(Record):
    """One image to look at."""

    image: str
    """SHA-256 of its bytes"""
    request_id: str | None
    """None: it is an image of the data set"""
    source: str
    split: str | None = None
    """of an image of the data set"""
    reason: Reason
    why: str
    score: float
    """0 to 1, comparable within one reason"""
    label: Labels | None = None
    """what is said of it now; None: nothing, or nothing that annotators agree on"""
    by: str = ""
    suggested: Labels | None = None
    """what a probably wrong label should be"""
    answer: Labels
    probabilities: dict[str, float]
    judged_by: str
    """what gave answer and probabilities, and that it has not seen the label"""


class ReviewQueue(Record):
    """What to look at, the most important first."""

    deployment: str
    dataset: str
    """`name@version`"""
    model: str
    classes: tuple[str, ...]
    multi_label: bool
    entries: tuple[Entry, ...]
    notes: tuple[str, ...]
    """what was looked at, and what was left out"""


def build(store: Store, name: str, budget: int, *, seed: int = 0) -> ReviewQueue:
    """The queue of a deployment. Raises `NotFound` for one that does not exist or has no model yet."""
    deployment = deployments.get(store, name)
    if deployment.model is None:
        raise NotFound(
            f"deployment {name!r} has no model yet, so that nothing was answered; promote one first"
        )
    gathered = _Gathered(store, deployment, seed)
    parts = {
        Reason.DISPUTED: gathered.disputed(),
        Reason.ERROR: gathered.errors(),
        Reason.UNSURE: gathered.unsure(budget),
    }
    quotas = share_out(budget, {reason: len(entries) for reason, entries in parts.items()})
    return ReviewQueue(
        deployment=name,
        dataset=gathered.version.id,
        model=deployment.model,
        classes=gathered.version.classes,
        multi_label=gathered.version.multi_label,
        entries=tuple(entry for reason, entries in parts.items() for entry in entries[: quotas[reason]]),
        notes=tuple(gathered.notes),
    )


def share_out(budget: int, there: Mapping[Reason, int]) -> dict[Reason, int]:
    """How many of each reason. Whatever one does not use goes to the others."""
    wanted = {Reason.DISPUTED: budget // 4, Reason.ERROR: -(-budget // 3)}
    wanted[Reason.UNSURE] = budget - sum(wanted.values())
    quotas = {reason: min(max(wanted[reason], 0), there[reason]) for reason in Reason}
    for reason in (Reason.UNSURE, Reason.ERROR, Reason.DISPUTED):
        quotas[reason] += min(there[reason] - quotas[reason], budget - sum(quotas.values()))
    return quotas


class _Unlabelled:
    """Captured images that nobody spoke of: those of which the model is least sure are kept, the others are counted.

    With their embeddings all of some months would fill the memory.
    """

    def __init__(self, model: str | None, *, multi_label: bool) -> None:
        self._model, self._multi_label = model, multi_label
        self.images: set[str] = set()
        self.current: set[str] = set()
        """of `images`, those that the champion answered"""
        self.usable: set[str] = set()
        """of `current`, those whose images were kept"""
        self.found: dict[str, tuple[float, Capture, Floats32]] = {}
        """image -> uncertainty, its latest capture without embedding, the embedding"""

    def see(self, capture: Capture) -> None:
        self.images.add(capture.image)
        if capture.model != self._model or not capture.embedding:
            return
        self.current.add(capture.image)
        if not capture.pixels:
            return
        self.usable.add(capture.image)
        before = self.found.get(capture.image)
        if before is not None and _order(before[1]) > _order(capture):
            return
        p = np.array([[*capture.probabilities.values()]])
        unsure = float(uncertainty(p, multi_label=self._multi_label)[0])
        embedding = np.array(capture.embedding, np.float32)
        self.found[capture.image] = unsure, capture.model_copy(update={"embedding": ()}), embedding
        if len(self.found) > 2 * MOST:
            least = sorted(self.found.items(), key=lambda each: (-each[1][0], each[0]))[:MOST]
            self.found = dict(least)

    def without(self, known: Set[str]) -> list[tuple[float, Capture, Floats32]]:
        """Those that are left where some images are known, in the order of their requests."""
        for each in (self.images, self.current, self.usable):
            each -= known
        left = (found for image, found in self.found.items() if image not in known)
        return sorted(left, key=lambda each: _order(each[1]))


def _order(capture: Capture) -> tuple[datetime, str]:
    return capture.received_at, capture.request_id


class _Gathered:
    """What the store holds of a deployment, as far as the queue needs it."""

    def __init__(self, store: Store, deployment: Deployment, seed: int) -> None:
        self.store, self.deployment, self.seed = store, deployment, seed
        self.version = catalog.latest(store, deployment.dataset)
        self.rows = manifest.read(store, self.version)
        words = labels.read(store, deployment.name)
        self.said: Consensus = consensus(words)
        self.reviewed = {word.request_id for word in words if word.review}
        self.spoken = {word.request_id for word in words}
        self.corrected = {word.request_id for word in labels.corrections(store, deployment.dataset)}
        self.words = words
        self.notes: list[str] = []
        self.captures: dict[str, Capture] = {}
        """of requests that somebody spoke of"""
        self.unlabelled = _Unlabelled(deployment.model, multi_label=self.version.multi_label)
        for capture in captures.each(store, deployment.name):
            if capture.request_id in self.spoken:
                self.captures[capture.request_id] = capture.model_copy(update={"embedding": ()})
            else:
                self.unlabelled.see(capture)

    # ------------------------------------------------------------------------------------------- parts

    def disputed(self) -> list[Entry]:
        found = [
            self.captures[request]
            for request in self.said.disputed
            if request in self.captures and self._has_image(self.captures[request])
        ]
        latest = latest_words(self.words)
        entries = []
        for capture in found:
            words = latest[capture.request_id].values()
            views = "; ".join(f"{word.annotator}: {spoken(word.label)}" for word in words)
            entries.append(self._of_capture(capture, Reason.DISPUTED, views, self._uncertainty([capture])[0]))
        return sorted(entries, key=lambda entry: (-entry.score, entry.request_id or ""))

    def errors(self) -> list[Entry]:
        config = TrialConfig.model_validate(
            read_version(self.store, self.deployment.model or "").lineage.config
        )
        known = [(self.captures[r], label) for r, label in self.said.agreed.items() if r in self.captures]
        images = labelled(self.version, self.rows, [pair for pair in known if self._has_image(pair[0])])
        found = probable_errors(self.store, self.version, self.rows, images, config, seed=self.seed)
        left = [
            suspect
            for suspect in found.suspects
            if found.images[suspect.row].image not in self.corrected
            and found.images[suspect.row].request not in self.reviewed
        ]
        self.notes.append(
            f"{len(found.suspects):,} of {len(found.images):,} labels are probably wrong, by {found.how}; "
            f"{len(found.suspects) - len(left):,} of these were reviewed before"
        )
        return [self._of_suspect(found, suspect.row, suspect.column, suspect.margin) for suspect in left]

    def unsure(self, number: int) -> list[Entry]:
        own = {row.image for row in self.rows} | {capture.image for capture in self.captures.values()}
        found = self.unlabelled
        left = found.without(own)
        self.notes.append(
            f"{len(found.images):,} captured images have no label; {len(found.images) - len(found.current):,} of these "
            f"were answered by another model than {self.deployment.model}, and of "
            f"{len(found.current) - len(found.usable):,} the image was not kept: they are left out"
        )
        if not left:
            return []
        usable = [capture for _, capture, _ in left]
        p = self._probabilities(usable)
        h = np.stack([embedding for *_, embedding in left]).astype(np.float64)
        sure = uncertainty(p, multi_label=self.version.multi_label)
        chosen = most_worth(p, h, number, multi_label=self.version.multi_label, seed=self.seed)
        why = "unsure, and unlike the others"
        entries = [self._of_capture(usable[i], Reason.UNSURE, why, float(sure[i])) for i in chosen]
        return [entry for entry, i in zip(entries, chosen, strict=True) if self._has_image(usable[i])]

    # ----------------------------------------------------------------------------------------- helpers

    def _has_image(self, capture: Capture) -> bool:
        """Whether there is an image to look at, which then stays: among those of data sets, by its digest."""
        if not captures.has_image(self.store, capture):
            return False
        try:
            captures.adopt_images(self.store, [capture])
        except KeyNotFound:
            return False  # forgotten between the two looks
        return True

    def _probabilities(self, answered: Sequence[Capture]) -> np.ndarray:
        classes = tuple(answered[0].probabilities)
        return np.array([[one.probabilities.get(name, 0.0) for name in classes] for one in answered])

    def _uncertainty(self, answered: Sequence[Capture]) -> list[float]:
        found: list[float] = uncertainty(
            self._probabilities(answered), multi_label=self.version.multi_label
        ).tolist()
        return found

    def _of_capture(self, capture: Capture, reason: Reason, why: str, score: float) -> Entry:
        return Entry(
            image=capture.image,
            request_id=capture.request_id,
            source=f"capture {capture.request_id}",
            reason=reason,
            why=why,
            score=round(score, 4),
            answer=capture.label,
            probabilities={name: round(p, 4) for name, p in capture.probabilities.items()},
            judged_by=f"{capture.model}, as it answered",
        )

    def _of_suspect(self, found: Errors, row: int, column: int, margin: float) -> Entry:
        one, classes = found.images[row], self.version.classes
        p = {name: round(float(v), 4) for name, v in zip(classes, found.probabilities[row], strict=True)}
        suggested = corrected(one.label, column, classes)
        return Entry(
            image=one.image,
            request_id=one.request,
            source=one.source,
            split=one.split,
            reason=Reason.ERROR,
            why=f"labelled {spoken(one.label)}, probably {spoken(suggested)}",
            score=round(margin, 4),
            label=one.label,
            by=one.by,
            suggested=suggested,
            answer=answer_of(p, multi_label=self.version.multi_label),
            probabilities=p,
            judged_by=found.how,
        )
