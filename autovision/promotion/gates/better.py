"""Being better somewhere: without that there is no reason to change what is served."""

from __future__ import annotations

import numpy as np

from autovision.promotion.gates.paired import (
    GateResult,
    Paired,
    defined,
    differences,
    rights,
    spoken_metric,
    undefined,
    values,
)
from autovision.significance import LEVEL, sign_test


def better_somewhere(
    paired: Paired, *, metric: str = "accuracy", level: float = LEVEL, gate: str = "better_somewhere"
) -> GateResult:
    """Whether the challenger is better on all images or on a subgroup.

    One-sided tests (McNemar's exact one for accuracy, a paired bootstrap otherwise) on the whole and
    on each subgroup, corrected for their number (Bonferroni), so that a challenger that equals the
    champion everywhere is promoted with a probability of `level` at most.
    """
    parts = {"all images": paired} | {
        name: paired.only(mask)
        for name, mask in sorted(paired.groups.items())
        if mask.any() and not mask.all()
    }
    tested: dict[str, float] = {}
    for name, part in parts.items():
        if metric == "accuracy":
            before_right, after_right = rights(part)
            tested[name] = sign_test(
                int((after_right & ~before_right).sum()), int((before_right & ~after_right).sum())
            )
        elif defined(part, metric):
            drawn = differences(part, metric)
            tested[name] = float((1 + np.count_nonzero(drawn <= 0)) / (1 + len(drawn)))
    if not tested:
        raise undefined(paired, metric)
    best = min(tested, key=lambda name: tested[name])
    level /= len(tested)
    before, after = values(parts[best], metric)
    passed = tested[best] <= level
    comparison = f"on {best} the {spoken_metric(metric)} goes from {before:.3f} to {after:.3f}"
    return GateResult(
        gate,
        passed,
        f"{comparison} (n = {len(parts[best].labels)}, p = {tested[best]:.2g}, "
        f"{'at most' if passed else 'needed is at most'} {level:.2g} with {len(tested)} tested)",
        {"where": best, "before": before, "after": after, "p_values": tested, "level": level},
    )
