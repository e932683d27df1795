"""How a rollout goes on: a pure function of what both arms did so far.

A challenger that does harm is rolled back; one that did none for as long, and as often, as its step asks for goes on.
Three things may be harm, and each has a third of the policy's probability of a false alarm: failed requests, slow ones,
and, where labels have arrived, wrong answers. All tests are sequential: they may be asked at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np

from autovision.promotion.sequential import loses_more, share_bounds, share_is_larger
from autovision.records.rollouts import LATENCY_EDGES_S, ArmCounts, Rollout, Stage

_HARMS = 3


class Turn(StrEnum):
    """What a rollout does next."""

    STAY = "stay"
    ADVANCE = "advance"
    """to the next step"""
    FINISH = "finish"
    """the challenger becomes champion"""
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Judged:
    """Answers of which the truth is known by now.

    Attributes:
        stable: requests that the champion answered alone, and of these the right ones.
        challenger: the same of the canary.
        gained: of requests that both answered: only the challenger was right.
        lost: only the champion was.
    """

    stable: tuple[int, int] = (0, 0)
    challenger: tuple[int, int] = (0, 0)
    gained: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Evidence:
    """Everything that is known of both arms since a rollout began."""

    stable: ArmCounts = field(default_factory=ArmCounts)
    challenger: ArmCounts = field(default_factory=ArmCounts)
    compared: int = 0
    agreed: int = 0
    judged: Judged = Judged()
    unloadable: str | None = None
    """why the challenger cannot be loaded"""


@dataclass(frozen=True)
class TurnVerdict:
    """What to do, and why."""

    turn: Turn
    why: str
    numbers: dict[str, Any]


def next_turn(rollout: Rollout, evidence: Evidence, at: datetime) -> TurnVerdict:
    """What a rollout does next."""
    numbers = _numbers(rollout, evidence)
    harm = (
        _unloadable(evidence)
        or _fails(rollout, evidence)
        or _slow(rollout, evidence)
        or _wrong(rollout, evidence)
    )
    if harm:
        return TurnVerdict(Turn.ROLL_BACK, harm, numbers)
    step = rollout.step
    answered = evidence.challenger.answered - rollout.answered_before
    passed_s = (at - rollout.step_began_at).total_seconds()
    if answered < step.requests or passed_s < step.seconds:
        return TurnVerdict(
            Turn.STAY,
            f"in this step the challenger has answered {max(answered, 0)} of {step.requests} requests, in "
            f"{max(passed_s, 0.0):.0f} of {step.seconds:g} s",
            numbers,
        )
    turn = Turn.FINISH if rollout.last else Turn.ADVANCE
    return TurnVerdict(turn, f"{_well(step.stage, answered, passed_s)}: {_told(evidence)}", numbers)


def _well(stage: Stage, answered: int, passed_s: float) -> str:
    what = "copies of requests" if stage is Stage.SHADOW else "requests"
    return f"the challenger has answered {answered} {what} in {passed_s:.0f} s and did no harm"


def _told(evidence: Evidence) -> str:
    stable, challenger = evidence.stable, evidence.challenger
    parts = [
        f"{challenger.failed} of {_all(challenger)} failed, of the champion's {stable.failed} of {_all(stable)}",
        f"half took up to {_half_ms(challenger):.0f} ms, of the champion's {_half_ms(stable):.0f} ms",
    ]
    if evidence.compared:
        parts.append(f"its label was the champion's in {evidence.agreed} of {evidence.compared}")
    judged = evidence.judged
    if judged.gained + judged.lost:
        parts.append(
            f"labels say that it alone was right {judged.gained} times, the champion {judged.lost} times"
        )
    if judged.challenger[0]:
        parts.append(
            f"labels say that {judged.challenger[1]} of {judged.challenger[0]} of its answers are right"
        )
    return "; ".join(parts)


# ----------------------------------------------------------------------------------------------------- what is harm


def _unloadable(evidence: Evidence) -> str | None:
    return evidence.unloadable and f"the challenger cannot be loaded: {evidence.unloadable}"


def _fails(rollout: Rollout, evidence: Evidence) -> str | None:
    stable, challenger = evidence.stable, evidence.challenger
    if not share_is_larger(
        challenger.failed,
        _all(challenger),
        stable.failed,
        _all(stable),
        margin=rollout.error_margin,
        level=rollout.false_alarm / _HARMS,
    ):
        return None
    return (
        f"{challenger.failed} of {_all(challenger)} requests of the challenger failed, and {stable.failed} of "
        f"{_all(stable)} of the champion: more by over {rollout.error_margin:g}"
    )


def _slow(rollout: Rollout, evidence: Evidence) -> str | None:
    """At which latency the challenger has clearly more requests beyond `latency_ratio` times as much.

    Every edge of the histogram is a test of its own, so that no edge is chosen by what was seen.
    """
    shift = max(1, round(2 * np.log2(rollout.latency_ratio)))
    edges = range(len(LATENCY_EDGES_S) - shift)
    level = rollout.false_alarm / _HARMS / len(edges)
    stable, challenger = evidence.stable, evidence.challenger
    if not stable.answered or not challenger.answered:
        return None
    for edge in edges:
        slow, usual = _beyond(challenger, edge + shift), _beyond(stable, edge)
        if share_is_larger(
            slow, challenger.answered, usual, stable.answered, margin=rollout.error_margin, level=level
        ):
            return (
                f"{slow} of {challenger.answered} requests of the challenger took over "
                f"{1e3 * LATENCY_EDGES_S[edge + shift]:.0f} ms, where {usual} of {stable.answered} of the champion "
                f"took over {1e3 * LATENCY_EDGES_S[edge]:.0f} ms: it is slower than {rollout.latency_ratio:g} times"
            )
    return None


def _wrong(rollout: Rollout, evidence: Evidence) -> str | None:
    judged, level = evidence.judged, rollout.false_alarm / _HARMS / 2
    if loses_more(judged.lost, judged.gained) >= 1 / level:
        return (
            f"of the copies with labels the champion alone was right {judged.lost} times, the challenger "
            f"{judged.gained} times"
        )
    (n, right), (than_n, than_right) = judged.challenger, judged.stable
    if share_is_larger(n - right, n, than_n - than_right, than_n, margin=rollout.error_margin, level=level):
        return (
            f"labels say that {right} of {n} answers of the challenger are right, and {than_right} of {than_n} of "
            "the champion's"
        )
    return None


# ---------------------------------------------------------------------------------------------------------- parts


def _all(counts: ArmCounts) -> int:
    return counts.answered + counts.failed


def _beyond(counts: ArmCounts, edge: int) -> int:
    """Requests that took longer than an edge of the histogram."""
    return sum(counts.latency[edge + 1 :])


def quantile_s(counts: ArmCounts, part: float) -> float:
    """Upper edge of the bucket of latencies in which a quantile is; 0 without requests."""
    if not counts.answered:
        return 0.0
    at = int(np.searchsorted(np.cumsum(counts.latency), counts.answered * part))
    return LATENCY_EDGES_S[min(at, len(LATENCY_EDGES_S) - 1)]


def _half_ms(counts: ArmCounts) -> float:
    return 1e3 * quantile_s(counts, 0.5)


def _numbers(rollout: Rollout, evidence: Evidence) -> dict[str, Any]:
    judged = evidence.judged
    level = rollout.false_alarm / _HARMS / 2
    arms = {
        name: {
            "answered": counts.answered,
            "failed": counts.failed,
            "failed_share": share_bounds(counts.failed, _all(counts), level),
            "median_latency_s": quantile_s(counts, 0.5),
        }
        for name, counts in (("stable", evidence.stable), ("challenger", evidence.challenger))
    }
    return {
        "rollout": rollout.id,
        "step": rollout.at,
        "stage": rollout.step.stage.value,
        "share": rollout.step.share,
        **arms,
        "compared": evidence.compared,
        "agreed": evidence.agreed,
        "labels": {
            "stable": judged.stable,
            "challenger": judged.challenger,
            "gained": judged.gained,
            "lost": judged.lost,
        },
    }
