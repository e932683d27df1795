"""Drift reports: every detector's verdict on a window of captured requests, and what moved.

Observed   what is known of the newest window
examine    a pure function from reference, earlier windows and the newest one to a report, and the window's rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

from autovision.errors import InvalidInput
from autovision.monitoring import explain, families, quality
from autovision.monitoring.detectors import kernel, labelled, rates
from autovision.monitoring.detectors.columns import columns_test, robust, with_spread
from autovision.monitoring.detectors.permutation import Floats
from autovision.monitoring.estimate import estimate
from autovision.monitoring.history import Past, Shelf, past
from autovision.monitoring.reference import Reference
from autovision.monitoring.rows import Rows, answers_of, digest
from autovision.monitoring.rows import labelled as labelled_rows
from autovision.records.deployments import Capture, DetectorVerdict, DriftReport, LabelledAccuracy, Moved
from autovision.store.keys import timestamped_id

MOST_ROWS = 500
"""normal rows, and rows of the latest windows, that enter a permutation test, drawn at random"""
_MOST_WITNESSES = 1000
_LEAST_FIGURES = 10
"""images with pixels, from which on quality is compared"""
_LEAST_HELD_OUT = 20
_TOLD = 0.05
"""of what did not raise the alarm itself, at most this p-value is told as moved"""


@dataclass(frozen=True)
class Observed:
    """What is known of the newest window.

    Attributes:
        captures: answered requests of one model.
        figures: request id -> (figures,) of `quality`, of those whose image was looked at.
        labels: (right, confidence, reviewed) of each request of the model that was labelled since the last report.
        without_pixels: requests whose images are not kept.
        repeats: requests that show what an earlier one of the window showed; see `families`.
    """

    captures: Sequence[Capture]
    figures: Mapping[str, Floats] = field(default_factory=dict)
    labels: Sequence[tuple[bool, float, bool]] = ()
    without_pixels: int = 0
    repeats: frozenset[str] = frozenset()

    @property
    def different(self) -> list[Capture]:
        """Requests that are tested: one of each image, or all where hardly any image is different."""
        found = [each for each in self.captures if each.request_id not in self.repeats]
        return found if len(found) >= families.LEAST else list(self.captures)


def no_rows(digests: Sequence[str]) -> dict[str, Rows]:
    """Of deployments without earlier windows."""
    return {}


def examine(
    deployment: str,
    reference: Reference,
    observed: Observed,
    *,
    windows_per_false_alarm: float,
    clock: Callable[[], datetime],
    before: Sequence[DriftReport] = (),
    read: Callable[[Sequence[str]], dict[str, Rows]] = no_rows,
) -> tuple[DriftReport, Rows]:
    """Compare a window of captures with what is normal; the report, and the rows that later windows need.

    Args:
        before: the reports of the model so far, the oldest first.
        read: gives the rows of their windows, by digest, as far as they are there.

    Raises:
        InvalidInput: no captures, captures of another model, or embeddings that are not of this model.
    """
    every = _checked(observed.captures, reference.model)
    observed = replace(observed, captures=every)
    captures = observed.different
    odd, rows = _rows(reference, replace(observed, captures=captures))
    rng = np.random.default_rng([len(before), len(captures)])
    examination = _Examination(reference, rows, windows_per_false_alarm, rng, before, Shelf(read))
    verdicts = examination.verdicts()
    alone = next(each for each in verdicts if each.name == "input" and each.windows == 1)
    # The rows of the reference come first: what is known of its groups follows their order.
    normal = examination.normal(1).embedded[:_MOST_WITNESSES]
    witnessed = kernel.witness(normal, rows.embedded, reference.projection.gamma)
    alarm = any(each.alarm for each in verdicts)
    if alarm:
        moved = explain.subgroups(captures, reference, witnessed)
        told = tuple(each for each in moved if each.p_value <= _TOLD)
        verdicts = [
            each.with_(moved=told) if each.name == "input" and each.alarm else each for each in verdicts
        ]
    at = clock()
    report = DriftReport(
        id=timestamped_id(at),
        deployment=deployment,
        model=reference.model,
        n=len(every),
        reference_n=alone.reference_n,
        first_request=every[0].request_id,
        last_request=every[-1].request_id,
        window_start=every[0].received_at,
        window_end=every[-1].received_at,
        score=alone.score,
        threshold=alone.threshold,
        p_value=alone.p_value,
        alpha=alone.alpha,
        alarm=alarm,
        details=_details(captures, rows, reference),
        created_at=at,
        detectors=tuple(verdicts),
        windows_per_false_alarm=windows_per_false_alarm,
        unlike=explain.unlike(captures, witnessed, odd),
        typical=explain.typical(reference),
        estimate=estimate(reference.rows.answers, rows.confidence, rng, reference.corrupted),
        accuracy=_accuracy(reference, rows),
        notes=(*reference.notes, *examination.notes(observed)),
        rows=digest(rows.to_bytes()),
    )
    return report, rows


# ------------------------------------------------------------------------------------------------- the window


def _checked(captures: Sequence[Capture], model: str) -> list[Capture]:
    if not captures:
        raise InvalidInput("there are no captured requests to examine; wait until a window is full")
    others = {capture.model for capture in captures} - {model}
    if others:
        raise InvalidInput(
            f"the window has answers of {', '.join(sorted(others))} besides {model}; "
            "embeddings of different models cannot be compared: choose the captures of one"
        )
    return sorted(captures, key=lambda capture: (capture.received_at, capture.request_id))


def _rows(reference: Reference, observed: Observed) -> tuple[dict[str, str], Rows]:
    """What is odd about the images, by request; and the rows."""
    captures = observed.captures
    embedded = reference.projection([capture.embedding for capture in captures])
    said, probabilities, confidence = answers_of(captures, reference.classes)
    known = [capture.request_id for capture in captures if capture.request_id in observed.figures]
    figures = np.array([observed.figures[request] for request in known]).reshape(-1, len(quality.FIGURES))
    right, sure, reviewed = labelled_rows(observed.labels)
    rows = Rows(embedded, said, probabilities, confidence, figures, right, sure, reviewed)
    odd = dict(zip(known, quality.odd(figures, reference.rows.figures), strict=True))
    # As they will be read: the verdicts on a window do not depend on whether it was stored before.
    return odd, rows.rounded()


def _details(captures: Sequence[Capture], rows: Rows, reference: Reference) -> dict[str, float]:
    details = {"mean_confidence": float(rows.confidence.mean())}
    if len(reference.rows.confidence):
        details["reference_confidence"] = float(reference.rows.confidence.mean())
    answers = [label for capture in captures for label in capture.labels]
    classes = {name for capture in captures for name in capture.probabilities} | set(answers)
    return details | {
        f"prediction_rate[{name}]": answers.count(name) / len(captures) for name in sorted(classes)
    }


def _accuracy(reference: Reference, rows: Rows) -> LabelledAccuracy | None:
    held_out, answers = reference.rows.answers, rows.answers
    if not len(answers) or len(held_out) < _LEAST_HELD_OUT:
        return None
    right, n = int(answers.right.sum()), len(answers)
    low, high = labelled.interval(right, n)
    return LabelledAccuracy(
        value=right / n,
        low=low,
        high=high,
        n=n,
        expected=labelled.accuracy_test(held_out, answers, 0.05).expected,
        held_out=float(held_out.right.mean()),
        reviewed=int(answers.reviewed.sum()),
        confidence=float(answers.confidence.mean()),
        confidence_of_all=float(rows.confidence.mean()),
    )


# --------------------------------------------------------------------------------------------------- verdicts


@dataclass
class _Examination:
    """All tests of one window."""

    reference: Reference
    rows: Rows
    rate: float
    rng: np.random.Generator
    before: Sequence[DriftReport]
    shelf: Shelf

    def __post_init__(self) -> None:
        found = {scale: past(self.before, scale, self.rng) for scale in rates.SCALES}
        self._past: dict[int, Past] = {scale: each for scale, each in found.items() if each is not None}
        self._normal: dict[int, Rows] = {}

    def verdicts(self) -> list[DetectorVerdict]:
        """Of every detector that has something to look at; over longer spans only where shorter ones are silent."""
        found: list[DetectorVerdict] = []
        for test in (self._input, self._quality, self._prediction, self._confidence, self._accuracy):
            for windows in rates.SCALES:
                if windows not in self._past:
                    break
                verdict = test(windows)
                if verdict is None:
                    break
                found.append(verdict)
                if verdict.alarm:
                    break
        return sorted(found, key=lambda each: each.windows)

    def normal(self, windows: int) -> Rows:
        """The reference, then earlier windows that are normal by now."""
        if windows not in self._normal:
            parts = self.shelf.of(self._past[windows].normal)
            self._normal[windows] = Rows.together([self.reference.rows, *parts])
        return self._normal[windows]

    def _recent(self, windows: int) -> Rows:
        return Rows.together([*self.shelf.of(self._past[windows].recent), self.rows])

    def notes(self, observed: Observed) -> Iterator[str]:
        if observed.without_pixels:
            yield (
                f"the images of {observed.without_pixels} of {len(observed.captures)} requests are not kept: "
                "their quality is not known"
            )
        if observed.repeats:
            few, n = len(observed.captures) - len(observed.repeats), len(observed.captures)
            how = (
                "of each one request is tested"
                if few >= families.LEAST
                else "so few that all requests are tested as they are: see whether the camera is stuck"
            )
            yield f"the {n} requests show {few} different images, {how}"
        later = [str(scale) for scale in rates.SCALES if scale not in self._past]
        if later:
            yield f"there are too few windows yet to look at {' or '.join(later)} together, where a slow drift shows"

    def _thinned(self, normal: Floats, recent: Floats) -> tuple[Floats, Floats]:
        return _at_most(normal, MOST_ROWS, self.rng), _at_most(recent, MOST_ROWS, self.rng)

    def _input(self, windows: int) -> DetectorVerdict:
        alpha = rates.level("input", windows, self.rate)
        normal, recent = self._thinned(self.normal(windows).embedded, self._recent(windows).embedded)
        gamma = self.reference.projection.gamma
        outcome = kernel.kernel_test(normal, recent, gamma=gamma, alpha=alpha, rng=self.rng)
        return DetectorVerdict(
            name="input",
            alarm=outcome.alarm,
            score=outcome.score,
            threshold=outcome.threshold,
            p_value=outcome.p_value,
            alpha=alpha,
            windows=windows,
            n=len(recent),
            reference_n=len(normal),
        )

    def _quality(self, windows: int) -> DetectorVerdict | None:
        if min(len(self.reference.rows.figures), len(self.rows.figures)) < _LEAST_FIGURES:
            return None
        normal, recent = self._thinned(self.normal(windows).figures, self._recent(windows).figures)
        every = np.concatenate([normal, recent])
        normal, recent = quality.complete(normal, every), quality.complete(recent, every)
        return self._columns(
            "quality", windows, *robust(normal, recent), (normal, recent), quality.FIGURES, "figure"
        )

    def _prediction(self, windows: int) -> DetectorVerdict | None:
        if len(self.reference.rows.said) < _LEAST_HELD_OUT:
            return None
        normal, recent = self.normal(windows), self._recent(windows)
        both = self._thinned(
            np.concatenate([normal.said, normal.probabilities], axis=1),
            np.concatenate([recent.said, recent.probabilities], axis=1),
        )
        return self._columns("prediction", windows, *both, both, self.reference.classes, "class")

    def _confidence(self, windows: int) -> DetectorVerdict | None:
        if len(self.reference.rows.confidence) < _LEAST_HELD_OUT:
            return None
        both = self._thinned(
            self.normal(windows).confidence[:, None], self._recent(windows).confidence[:, None]
        )
        return self._columns("confidence", windows, *robust(*both), both, ("confidence",), "figure")

    def _columns(
        self,
        name: rates.Name,
        windows: int,
        normal: Floats,
        recent: Floats,
        plain: tuple[Floats, Floats],
        names: Sequence[str],
        kind: str,
    ) -> DetectorVerdict:
        """`plain` are normal and recent rows in their own units, which the tested columns are made of."""
        alpha = rates.level(name, windows, self.rate)
        outcome, columns = columns_test(normal, recent, alpha=alpha, rng=self.rng)
        titles = with_spread(names) if kind == "figure" else [*names, *names]
        moved = [
            Moved(
                kind="class" if kind == "class" else "figure",
                name=titles[each.number],
                window=_mean(plain[1], plain[0], each.number),
                reference=_mean(plain[0], plain[0], each.number),
                n=len(recent),
                p_value=each.p_value,
            )
            for each in columns
            if outcome.alarm and each.p_value <= _TOLD
        ]
        return DetectorVerdict(
            name=name,
            alarm=outcome.alarm,
            score=outcome.score,
            threshold=outcome.threshold,
            p_value=outcome.p_value,
            alpha=alpha,
            windows=windows,
            n=len(recent),
            reference_n=len(normal),
            moved=_first_of_each(moved),
        )

    def _accuracy(self, windows: int) -> DetectorVerdict | None:
        # Labels may come without a window's own: but where none came, nothing is new.
        if len(self.reference.rows.right) < _LEAST_HELD_OUT or not len(self.rows.right):
            return None
        alpha = rates.level("accuracy", windows, self.rate)
        normal, recent = self.normal(windows).answers, self._recent(windows).answers
        found = labelled.accuracy_test(normal, recent, alpha)
        return DetectorVerdict(
            name="accuracy",
            alarm=found.alarm(alpha),
            score=found.score,
            threshold=found.threshold,
            p_value=found.p_value,
            alpha=alpha,
            windows=windows,
            n=len(recent),
            reference_n=len(normal),
        )


def _at_most(rows: Floats, most: int, rng: np.random.Generator) -> Floats:
    return rows if len(rows) <= most else rows[np.sort(rng.permutation(len(rows))[:most])]


def _mean(rows: Floats, normal: Floats, number: int) -> float:
    """Of a column in its own unit; beyond these, the standard deviation of one around its normal mean."""
    if number < rows.shape[1]:
        return float(rows[:, number].mean())
    at = number - rows.shape[1]
    return float(np.sqrt(((rows[:, at] - normal[:, at].mean()) ** 2).mean()))


def _first_of_each(moved: Sequence[Moved]) -> tuple[Moved, ...]:
    """A class moved in its rate or its mean probability: the surer of the two tells."""
    found: dict[str, Moved] = {}
    for each in moved:
        found.setdefault(each.name, each)
    return tuple(found.values())
