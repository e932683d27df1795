"""Labels: what people say of captured requests and of images, and what is worth their look."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from autovision.api.deployments import Deployments
from autovision.dataset import catalog as datasets
from autovision.errors import InvalidInput, near
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, Labels
from autovision.records.deployments import EARLIEST, Label
from autovision.registry import deployments
from autovision.store import captures, keys, labels

# What needs torch or Ray is imported by the methods that use it: looking things up takes no seconds.
if TYPE_CHECKING:
    from autovision.labelling.consensus import Consensus
    from autovision.review.queue import ReviewQueue

_SHOWN, _MOST_SHOWN = 12, 80
"""classes that an error lists, and characters of a label that it repeats"""


@dataclass(frozen=True)
class Word:
    """What somebody said of a request's image."""

    request_id: str
    label: str | Collection[str]
    annotator: str = "unknown"
    confidence: float = 1.0
    said_at: datetime | None = None
    """with a time zone; None: nobody knows when"""


class Labelled(Deployments):
    """Labels: what people say of captured requests and of images, and what is worth their look."""

    def feedback(
        self,
        deployment: str,
        request_id: str,
        label: str | Collection[str],
        *,
        annotator: str = "unknown",
        confidence: float = 1.0,
        review: bool = False,
        new_classes: Collection[str] = (),
        began: datetime | None = None,
    ) -> labels.News:
        """Say what a request's image really was; what became of that is true if it is news.

        Args:
            label: its class; where an image may have any number of classes, all of them, which may be none.
            review: it settles what others said before.
            new_classes: names that a label may have though the data set does not know them: its next version will.
            began: when the import was begun that it is part of: what the annotator said before, word for word, and has
                changed since, stays changed then. None: it is said now.
        """
        version = datasets.latest(self.store, deployments.get(self.store, deployment).dataset)
        word = Word(request_id, label, annotator, confidence)
        given = _checked(version, _known(version.classes, new_classes), deployment, word, now())
        return labels.take_over(self.store, deployment, given.with_(review=review), began=began)

    def feedback_many(
        self,
        deployment: str,
        words: Iterable[Word],
        *,
        new_classes: Collection[str] = (),
        began: datetime | None = None,
    ) -> list[labels.News | InvalidInput]:
        """What was collected elsewhere: of each word what became of it, or why it was refused; the others are stored.

        All of it again changes nothing, also if annotators have changed their minds since. Of two words of one
        annotator on a request the one that was said later stands, of those that do not say when the last one here.

        Args:
            new_classes: as in `feedback`.
            began: as in `feedback`, of words that are given in parts. None: these are all.
        """
        version = datasets.latest(self.store, deployments.get(self.store, deployment).dataset)
        found: list[labels.News | InvalidInput] = []
        good: dict[int, Label] = {}
        known = _known(version.classes, new_classes)
        at = now()
        began = at if began is None else began
        for number, word in enumerate(words):
            # Which of two is the later one is told by their times.
            at = max(now(), at + timedelta(microseconds=1))
            try:
                good[number] = _checked(version, known, deployment, word, at)
                found.append(labels.News.KNOWN)
            except InvalidInput as error:
                found.append(error)
        stored = labels.take_over_many(self.store, deployment, [*good.values()], began=began)
        for number, news in zip(good, stored, strict=True):
            found[number] = news
        return found

    def correct(
        self,
        dataset: str,
        image: str,
        label: str | Collection[str],
        *,
        annotator: str = "unknown",
        confidence: float = 1.0,
        began: datetime | None = None,
    ) -> labels.News:
        """Say what an image of a data set, named by its digest, really is; what became of that is true if it is news.

        Args:
            began: as in `feedback`.

        `apply_corrections` makes a version of it. Raises `InvalidInput` for an image that is not in the latest version.
        """
        from autovision.dataset import manifest

        version = datasets.latest(self.store, dataset)
        if image not in {row.image for row in manifest.read(self.store, version)}:
            raise InvalidInput(
                f"{version.id} has no image {image[:70]!r}; give the SHA-256 of one of its images"
            )
        given = Label(
            request_id=image,
            label=_checked_label(version, _known(version.classes), label, f"data set {dataset!r}"),
            annotator=annotator,
            confidence=confidence,
            review=True,
            received_at=now(),
        )
        return labels.correct(self.store, dataset, given, began=began)

    def apply_corrections(self, dataset: str) -> DatasetVersion:
        """The next version of a data set, with the labels that reviews gave its images; the latest one if it has them.

        Every image keeps its split. An image on which reviewers contradict each other keeps its label.
        """
        from autovision.dataset.relabel import relabel
        from autovision.labelling.consensus import consensus

        said = consensus(labels.corrections(self.store, dataset)).agreed
        return relabel(self.store, datasets.latest(self.store, dataset), said)

    def review(self, deployment: str, budget: int = 100, *, seed: int = 0) -> ReviewQueue:
        """What is most worth looking at of a deployment's captures and of its data set; see `review.queue`.

        `review.folder.write` makes files of it. Raises `NotFound` for a deployment that has no model yet.
        """
        from autovision.review.queue import build

        return build(self.store, deployment, budget, seed=seed)

    def captured_requests(self, deployment: str) -> set[str]:
        """The ids of the requests of a deployment that were captured and stored by now."""
        deployments.get(self.store, deployment)
        return captures.request_ids(self.store, deployment)

    def agreement(self, deployment: str) -> Consensus:
        """What annotators agree on of a deployment's requests, what not, and how good each of them is."""
        from autovision.labelling.consensus import consensus

        deployments.get(self.store, deployment)
        return consensus(labels.read(self.store, deployment))


def _checked(
    version: DatasetVersion,
    known: Mapping[str, str],
    deployment: str,
    word: Word,
    at: datetime,
) -> Label:
    if not 0 <= word.confidence <= 1:
        raise InvalidInput(f"confidence {word.confidence!r} of a label; give a number from 0 to 1")
    if word.said_at is not None and word.said_at.utcoffset() is None:
        raise InvalidInput(
            f"said_at {word.said_at.isoformat()} of a label has no time zone; give it one, such as tzinfo=UTC"
        )
    if word.said_at is not None and word.said_at < EARLIEST:
        raise InvalidInput(
            f"said_at {word.said_at.isoformat()} of a label is before {EARLIEST:%Y}; mend the date"
        )
    return Label(
        request_id=keys.check_request_id(word.request_id),
        label=_checked_label(
            version,
            known,
            word.label,
            f"deployment {deployment!r}",
            remedy="; if it is a new one, name it with --new-class (new_classes in Python)",
        ),
        annotator=word.annotator,
        confidence=word.confidence,
        received_at=at,
        said_at=word.said_at,
    )


def _checked_label(
    version: DatasetVersion,
    known: Mapping[str, str],
    label: str | Collection[str],
    whose: str,
    *,
    remedy: str = "",
) -> Labels:
    """As the data set has labels: one class, or a tuple of any number.

    Args:
        known: `_known` of the classes that it may be, which for many labels are gone through once.
    """
    given = (label,) if isinstance(label, str) else tuple(label)
    if not version.multi_label and len(given) != 1:
        raise InvalidInput(f"{len(given)} labels for an image of {whose}; its images have exactly one")
    names = tuple(known.get(_composed(name), name) for name in given)
    for name in names:
        if _composed(name) not in known:
            more = f" and {len(version.classes) - _SHOWN} more" if len(version.classes) > _SHOWN else ""
            raise InvalidInput(
                f"label {_shortened(name)!r} is not a class of {whose}{near(name, version.classes)}; its classes: "
                f"{', '.join(version.classes[:_SHOWN])}{more}{remedy}"
            )
    return names if version.multi_label else names[0]


def _known(classes: Iterable[str], new: Iterable[str] = ()) -> dict[str, str]:
    """Composed name -> the name as it is spelled."""
    return {_composed(name): name for name in (*new, *classes)}


def _composed(name: str) -> str:
    """The same for all ways to write the same letters: file names of some systems have accents apart from letters."""
    return unicodedata.normalize("NFC", name)


def _shortened(name: str) -> str:
    return name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}…"
