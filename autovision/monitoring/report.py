"""Drift reports: what the monitor saw in one window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from autovision.errors import InvalidInput
from autovision.monitoring.detectors import drift_test
from autovision.records.deployments import Capture, DriftReport
from autovision.store.keys import timestamped_id


def examine(
    deployment: str,
    model: str,
    reference: NDArray[np.floating],
    captures: Sequence[Capture],
    *,
    alpha: float,
    seed: int,
    clock: Callable[[], datetime],
    reference_confidence: float | None = None,
) -> DriftReport:
    """Compare a window of captures, all answered by `model`, with the reference (n, d) of its embeddings.

    The reference is of held-out images: see `drift_test`. `reference_confidence` is the model's mean
    confidence on them: that in its class, or, where it answers any number of classes, the mean of that in each
    answer whether a class is there. `details` holds `mean_confidence`, `reference_confidence` if given, and
    `prediction_rate[<class>]` for each class. Raises `InvalidInput` where a comparison makes no sense.
    """
    if not captures:
        raise InvalidInput("there are no captured requests to examine; wait until a window is full")
    others = {capture.model for capture in captures} - {model}
    if others:
        raise InvalidInput(
            f"the window has answers of {', '.join(sorted(others))} besides {model}; "
            "embeddings of different models cannot be compared: choose the captures of one"
        )
    ordered = sorted(captures, key=lambda capture: (capture.received_at, capture.request_id))
    result = drift_test(reference, [capture.embedding for capture in ordered], alpha=alpha, seed=seed)
    at = clock()
    return DriftReport(
        id=timestamped_id(at),
        deployment=deployment,
        model=model,
        n=len(ordered),
        reference_n=result.reference_n,
        first_request=ordered[0].request_id,
        last_request=ordered[-1].request_id,
        window_start=ordered[0].received_at,
        window_end=ordered[-1].received_at,
        score=result.score,
        threshold=result.threshold,
        p_value=result.p_value,
        alpha=alpha,
        alarm=result.alarm,
        details=_details(ordered, reference_confidence),
        created_at=at,
    )


def _details(captures: Sequence[Capture], reference_confidence: float | None) -> dict[str, float]:
    confidence = [_confidence(capture) for capture in captures]
    details = {"mean_confidence": float(np.mean(confidence))}
    if reference_confidence is not None:
        details["reference_confidence"] = reference_confidence
    answers = [label for capture in captures for label in capture.labels]
    classes = {name for capture in captures for name in capture.probabilities} | set(answers)
    return details | {
        f"prediction_rate[{name}]": answers.count(name) / len(captures) for name in sorted(classes)
    }


def _confidence(capture: Capture) -> float:
    if isinstance(capture.label, str):
        return max(capture.probabilities.values(), default=0.0)
    return float(np.mean([max(p, 1 - p) for p in capture.probabilities.values()] or [0.0]))
