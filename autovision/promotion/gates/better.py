"""Being better somewhere: without that there is no reason to change what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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

Asked = Callable[[Mapping[str, int]], Mapping[str, float]]
"""evidence of each part that is tested -> the levels of their tests; see `better_somewhere`"""


def once(evidence: Mapping[str, int]) -> dict[str, float]:
    """The levels of parts that are looked at once (Bonferroni)."""
    return dict.fromkeys(evidence, LEVEL / len(evidence))


def better_somewhere(
    paired: Paired, *, metric: str = "accuracy", levels: Asked = once, gate: str = "better_somewhere"
) -> GateResult:
    """Whether the challenger is better on all images or on a subgroup.

    One-sided tests (McNemar's exact one for accuracy, a paired bootstrap otherwise) on the whole and
    on each subgroup, corrected for their number, so that a challenger that equals the champion everywhere is promoted
    with a probability of `LEVEL` at most, if it is looked at `once`.

    Args:
        levels: of the tests. The evidence of a part are the images that only one of both gets right, or for a metric
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
    asked = levels(evidence)
    best = min(tested, key=lambda name: (tested[name] > asked[name], tested[name]))
    before, after = values(parts[best], metric)
    passed = tested[best] <= asked[best]
    comparison = f"on {best} the {spoken_metric(metric)} goes from {before:.3f} to {after:.3f}"
    return GateResult(
        gate,
        passed,
        f"{comparison} (n = {len(parts[best].labels)}, p = {tested[best]:.2g}, "
        f"{'at most' if passed else 'needed is at most'} {asked[best]:.2g} with {len(tested)} tested)",
        {
            "where": best,
            "before": before,
            "after": after,
            "p_values": tested,
            "evidence": evidence,
            "levels": dict(asked),
            "level": asked[best],
        },
    )
