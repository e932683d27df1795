"""What a reviewer filled in: read, checked and stored row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.cli import label_files, table_file
from autovision.errors import AutoVisionError, InvalidInput, near
from autovision.records.base import now

if TYPE_CHECKING:
    from autovision.api import AutoVision
    from autovision.records.datasets import DatasetVersion
    from autovision.review.folder import Verdict
    from autovision.store.labels import News


@dataclass(frozen=True)
class TakenOver:
    """What became of the rows."""

    stored: int
    known: int
    outdated: int
    """rows that say again what their reviewer said before, and has changed since: that stands"""
    empty: int
    bad: tuple[tuple[int, str], ...]
    """line in the file, and what is wrong with it"""
    version: DatasetVersion | None
    """the next version of the data set; None: none of its images was spoken of"""

    def to_json(self) -> dict[str, Any]:
        return {
            "stored": self.stored,
            "known": self.known,
            "outdated": self.outdated,
            "empty": self.empty,
            "bad": [{"line": line, "error": error} for line, error in self.bad],
            "dataset": self.version and self.version.id,
            "corrections": self.version and self.version.corrections,
        }

    def to_text(self) -> str:
        told = (
            f"{self.stored} labels stored, {self.known} known already, {self.empty} rows without one, "
            f"{len(self.bad)} rows not usable"
        )
        lines = [told, *label_files.listed(label_files.together(self.bad))]
        if self.outdated:
            lines.append(
                f"{self.outdated} rows say what their reviewers have changed since, and stay changed; `autovision "
                "feedback` takes it back"
            )
        if self.version is not None:
            lines.append(f"the data set with its corrections is {self.version.id}")
        return "\n".join(lines)


def take_over(
    av: AutoVision,
    deployment: str,
    path: Path,
    annotator: str,
    confidence: float,
    *,
    new_classes: Sequence[str] = (),
) -> TakenOver:
    """Store what the rows of a queue say, and make the next version of the data set if its images were corrected.

    Raises `InvalidInput` for a file that cannot be read or is no queue, `NotFound` for an unknown deployment.
    """
    from autovision.review.folder import NEW_LABEL, TABLE, verdict_of
    from autovision.store.labels import News

    label_files.check_confidence(confidence)
    dataset = av.dataset(av.deployment(deployment).dataset)
    file = path / TABLE if path.is_dir() else path
    columns, rows = table_file.read(file, "the table")
    for name in (NEW_LABEL, "request_id", "image", "dataset"):
        if name not in columns:
            raise InvalidInput(
                f"{str(file)!r} has no column {name!r}{near(name, columns)}; give a table that `autovision labels "
                "review` made, or plain labels to `autovision feedback --file`"
            )
    found: Counter[News] = Counter()
    empty, corrects, began = 0, False, now()
    bad: list[tuple[int, str]] = []
    for line, cells in rows:
        try:
            table_file.check_cells(cells)
            verdict = verdict_of(cells, multi_label=dataset.multi_label)
            if verdict is None:
                empty += 1
                continue
            sure = label_files.confidence_of(verdict.confidence, confidence)
            reviewer = verdict.reviewer or annotator
            news = _store(av, deployment, dataset.name, verdict, reviewer, sure, new_classes, began)
        except AutoVisionError as error:
            bad.append((line, str(error)))
            continue
        corrects = corrects or verdict.request_id is None
        found[news] += 1
    version = av.apply_corrections(dataset.name) if corrects else None
    return TakenOver(found[News.STORED], found[News.KNOWN], found[News.OUTDATED], empty, tuple(bad), version)


def _store(
    av: AutoVision,
    deployment: str,
    dataset: str,
    verdict: Verdict,
    reviewer: str,
    confidence: float,
    new_classes: Sequence[str],
    began: datetime,
) -> News:
    if verdict.request_id is not None:
        return av.feedback(
            deployment,
            verdict.request_id,
            verdict.label,
            annotator=reviewer,
            confidence=confidence,
            review=True,
            began=began,
            new_classes=new_classes,
        )
    if verdict.dataset != dataset:
        raise InvalidInput(
            f"the row is of data set {verdict.dataset!r}, and deployment {deployment!r} has {dataset!r}; import it for "
            "a deployment of its own"
        )
    return av.correct(
        dataset, verdict.image, verdict.label, annotator=reviewer, confidence=confidence, began=began
    )
