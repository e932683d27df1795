"""Whether a challenger may take the champion's place: a pure function of paired predictions."""

from __future__ import annotations

import numpy as np

from autovision.errors import InvalidInput
from autovision.metrics import COST, check_metric, members
from autovision.promotion.gates import (
    MARGIN,
    GateResult,
    Paired,
    beats_majority,
    better_somewhere,
    no_forgetting,
    not_worse_on,
    not_worse_overall,
)
from autovision.records.deployments import Verdict


def decide(paired: Paired, *, metric: str = "accuracy", margin: float = MARGIN) -> Verdict:
    """Accept the challenger if all gates pass; `numbers["gates"]` has each with its numbers.

    Without a champion it must beat the majority class. With one it must be not worse on all images,
    on each subgroup and in each class's recall, and better on all images or on a subgroup. Since all
    must pass (intersection-union, Berger 1982), the error of accepting a challenger that is worse
    somewhere by more than `margin` stays at 5 % wherever there are images enough to bound it, and that
    of accepting one that is better nowhere at 5 % always.

    Raises `InvalidInput` for an unknown metric, or one that is undefined on these images.
    """
    check_metric(metric)
    if metric == COST and paired.costs is None:
        raise InvalidInput(f"{COST} needs costs; give them with the predictions, or gate by another metric")
    gates = _gates(paired, metric, margin)
    failed = [gate for gate in gates if not gate.passed]
    accepted = not failed
    if not accepted:
        what = "refuse the challenger; what is served stays"
    elif paired.champion is None:
        what = "promote the first model"
    else:
        what = "promote the challenger over the champion"
    told = gates if accepted else failed
    passed = _passed(len(gates)) if accepted else f"it fails {len(failed)} of {len(gates)} gates"
    return Verdict(
        accepted=accepted,
        what=what,
        why=f"{passed}: " + "; ".join(f"{gate.name}: {gate.reason}" for gate in told),
        numbers={
            "metric": metric,
            "margin": margin,
            "n": len(paired.labels),
            "gates": [
                {"name": gate.name, "passed": gate.passed, "reason": gate.reason, "numbers": gate.numbers}
                for gate in gates
            ],
        },
    )


def _passed(gates: int) -> str:
    return "it passes the gate" if gates == 1 else f"it passes all {gates} gates"


def _gates(paired: Paired, metric: str, margin: float) -> list[GateResult]:
    if paired.champion is None:
        return [beats_majority(paired)]
    occurring = np.flatnonzero(members(paired.labels, len(paired.classes)).any(0))
    return [
        better_somewhere(paired, metric=metric),
        not_worse_overall(paired, metric=metric, margin=margin),
        *(not_worse_on(paired, group, metric=metric, margin=margin) for group in sorted(paired.groups)),
        *(no_forgetting(paired, int(label), margin=margin) for label in occurring),
    ]
