"""Whether the second model is better, said in one sentence that follows from the numbers alone."""

from __future__ import annotations

import math
from enum import StrEnum

from autovision.demo.result import DemoResult, Outcomes
from autovision.records.base import Record
from autovision.records.deployments import DecisionKind
from autovision.records.models import Evaluation, Interval

_Z95 = 1.959963984540054


class Change(StrEnum):
    """What a difference with its interval says."""

    BETTER = "better"
    """the whole interval is above zero"""
    SAME = "not told apart from noise"
    """the interval holds zero"""
    WORSE = "worse"
    """the whole interval is below zero"""
    UNKNOWN = "unknown"
    """there are no figures to compare"""


class Gain(Record):
    """A difference of accuracies, after minus before, with its 95 % interval."""

    interval: Interval
    paired: bool
    """from the same cells answered by both models; otherwise as if the two were independent"""

    @property
    def change(self) -> Change:
        if not all(math.isfinite(x) for x in (self.interval.value, self.interval.low, self.interval.high)):
            return Change.UNKNOWN
        if self.interval.low > 0:
            return Change.BETTER
        return Change.WORSE if self.interval.high < 0 else Change.SAME

    def __str__(self) -> str:
        value, low, high = (_points(x) for x in (self.interval.value, self.interval.low, self.interval.high))
        return f"{value} points [{low}, {high}]"


class Verdict(Record):
    """The judgement on the whole story."""

    success: bool
    """clearly better on poly, and not worse on mono beyond noise"""
    text: str
    poly: Gain
    mono: Gain


def paired_gain(outcomes: Outcomes) -> Gain:
    """The accuracy gained on the same cells: adjusted Wald for paired shares (Bonett and Price 2012)."""
    if outcomes.n == 0:
        return Gain(interval=Interval(value=math.nan, low=math.nan, high=math.nan), paired=True)
    size = outcomes.n + 2
    up, down = (outcomes.fixed + 1) / size, (outcomes.broken + 1) / size
    half = _Z95 * math.sqrt((up + down - (up - down) ** 2) / size)
    value = (outcomes.fixed - outcomes.broken) / outcomes.n
    low, high = up - down - half, up - down + half
    return Gain(interval=Interval(value=value, low=max(-1.0, low), high=min(1.0, high)), paired=True)


def unpaired_gain(before: Interval, after: Interval) -> Gain:
    """The difference of two independent figures: MOVER (Zou and Donner 2008), from their own intervals.

    Answers to the same cells are positively correlated, so this interval is wider than it need be.
    """
    value = after.value - before.value
    low = value - math.hypot(after.value - after.low, before.high - before.value)
    high = value + math.hypot(after.high - after.value, before.value - before.low)
    return Gain(interval=Interval(value=value, low=low, high=high), paired=False)


def gain(result: DemoResult, cell_type: str) -> Gain:
    """What the second model gained on cells of one type."""
    outcomes = result.outcomes.get("poly" if cell_type == "poly" else "mono")
    if outcomes is not None:
        return paired_gain(outcomes)
    return unpaired_gain(result.before.on(cell_type).accuracy, result.after.on(cell_type).accuracy)


def judge(result: DemoResult) -> Verdict:
    """Clearly better on poly and not worse on mono beyond noise, or an honest word that it is not."""
    poly, mono = gain(result, "poly"), gain(result, "mono")
    if not result.replaced:
        return Verdict(success=False, text=_unchanged(result), poly=poly, mono=mono)
    success = poly.change is Change.BETTER and mono.change in (Change.BETTER, Change.SAME)
    sentences = [f"{_poly_clause(poly)}{' and ' if success else '; '}{_mono_clause(mono)}."]
    sentences += _reservations(result)
    return Verdict(success=success, text=" ".join(sentences), poly=poly, mono=mono)


def _unchanged(result: DemoResult) -> str:
    text = "Not better: no second model was promoted, so the first one still serves."
    refused = [d for d in result.decisions if d.kind is DecisionKind.PROMOTE and not d.accepted]
    return f"{text} The last one was refused: {refused[-1].why.rstrip('.')}." if refused else text


def _poly_clause(gain: Gain) -> str:
    match gain.change:
        case Change.BETTER:
            return f"Clearly better on poly cells ({gain})"
        case Change.WORSE:
            return f"Worse on poly cells ({gain})"
        case Change.SAME:
            return f"Not clearly better on poly cells: the difference is within noise ({gain})"
        case Change.UNKNOWN:
            return "On poly cells nothing can be said, for want of figures"


def _mono_clause(gain: Gain) -> str:
    match gain.change:
        case Change.BETTER:
            return f"better on mono cells too ({gain})"
        case Change.WORSE:
            return f"worse on mono cells beyond noise ({gain})"
        case Change.SAME:
            return f"not worse on mono cells beyond noise ({gain})"
        case Change.UNKNOWN:
            return "on mono cells nothing can be said, for want of figures"


def _reservations(result: DemoResult) -> list[str]:
    """What a reader should know before trusting accuracy alone."""
    found = []
    for cell_type in ("poly", "mono"):
        before, after = result.before.on(cell_type), result.after.on(cell_type)
        if after.accuracy.value <= after.majority_accuracy:
            found.append(
                f"On {cell_type} it is no more accurate than always answering the most frequent class "
                f"({after.accuracy.value:.3f} against {after.majority_accuracy:.3f})."
            )
        if _disagrees(before, after):
            found.append(
                f"On {cell_type} accuracy and balanced accuracy disagree: balanced accuracy went from "
                f"{before.balanced_accuracy.value:.3f} to {after.balanced_accuracy.value:.3f}."
            )
    return found


def _disagrees(before: Evaluation, after: Evaluation) -> bool:
    """Accuracy rose while balanced accuracy fell by more than its noise: the rarer class pays."""
    balanced = unpaired_gain(before.balanced_accuracy, after.balanced_accuracy)
    return after.accuracy.value > before.accuracy.value and balanced.change is Change.WORSE


def _points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")
