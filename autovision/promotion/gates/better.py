"""Being better somewhere: without that there is no reason to change what is served."""

from __future__ import annotations

from collections.abc import Callable

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

Asked = Callable[[str, int, int], float]
"""(part, evidence, parts that are tested) -> the level of the test of that part; see `better_somewhere`"""


def once(part: str, evidence: int, tested: int) -> float:
    """The level of parts that are looked at once (Bonferroni)."""
    return LEVEL / tested


def better_somewhere(
    paired: Paired, *, metric: str = "accuracy", level: Asked = once, gate: str = "better_somewhere"
) -> GateResult:
    """Whether the challenger is better on all images or on a subgroup.

    One-sided tests (McNemar's exact one for accuracy, a paired bootstrap otherwise) on the whole and
    on each subgroup, corrected for their number (Bonferroni), so that a challenger that equals the
    champion everywhere is promoted with a probability of `LEVEL` at most.

    Args:
        level: of each test. The evidence of a part are the images that only one of both gets right, or for a metric
            other than accuracy all of its images.
    """
    parts = {"all images": paired} | {
        name: paired.only(mask)
        for name, mask in sorted(paired.groups.items())
        if mask.any() and not mask.all()
    }
    tested: dict[str, float] = {}
    evidence: dict[str, int] = {}
    for name, part in parts.items():
        if metric == "accuracy":
            before_right, after_right = rights(part)
            gained, lost = int((after_right & ~before_right).sum()), int((before_right & ~after_right).sum())
            tested[name], evidence[name] = sign_test(gained, lost), gained + lost
        elif defined(part, metric):
            drawn = differences(part, metric)
            tested[name] = float((1 + np.count_nonzero(drawn <= 0)) / (1 + len(drawn)))
            evidence[name] = len(part.labels)
    if not tested:
        raise undefined(paired, metric)
    levels = {name: level(name, evidence[name], len(tested)) for name in tested}
    best = min(tested, key=lambda name: (tested[name] > levels[name], tested[name]))
    before, after = values(parts[best], metric)
    passed = tested[best] <= levels[best]
    comparison = f"on {best} the {spoken_metric(metric)} goes from {before:.3f} to {after:.3f}"
    return GateResult(
        gate,
        passed,
        f"{comparison} (n = {len(parts[best].labels)}, p = {tested[best]:.2g}, "
        f"{'at most' if passed else 'needed is at most'} {levels[best]:.2g} with {len(tested)} tested)",
        {
            "where": best,
            "before": before,
            "after": after,
            "p_values": tested,
            "evidence": evidence,
            "levels": levels,
            "level": levels[best],
        },
    )
