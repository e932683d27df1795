"""Not being worse: one rule, for the whole set, for each subgroup, and for whatever else is a share of images.

Where there are enough images to show with 80 % power that an equal model is within the margin, the
challenger must show it: the lower bound of its difference (Tango 1998) must lie above -margin. On
fewer images even an equal model would often fail that, so there a challenger that cannot show it
fails only by a significant worsening (McNemar's exact test).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autovision.errors import InvalidInput
from autovision.metrics import Mask
from autovision.promotion.gates.paired import (
    GateResult,
    Paired,
    defined,
    differences,
    rights,
    spoken_metric,
    values,
)
from autovision.significance import (
    LEVEL,
    POWER,
    can_bound,
    paired_lower_bound,
    sign_test,
    z_of,
)

MARGIN = 0.03
"""in the metric's unit, unless the deployment's policy says another one"""


def not_worse_overall(paired: Paired, *, metric: str = "accuracy", margin: float = MARGIN) -> GateResult:
    """Whether the challenger is not worse on all images, by the rule above.

    For metrics other than accuracy the bound is that of a paired bootstrap, `margin` in the metric's
    unit, and a worsening is significant where the upper bound lies below 0.
    """
    return _not_worse("not_worse_overall", paired, "on all images", metric, margin)


def not_worse_on(
    paired: Paired, group: str, *, metric: str = "accuracy", margin: float = MARGIN
) -> GateResult:
    """The same for one subgroup. Where the metric is undefined in it, accuracy takes its place."""
    mask = paired.groups[group]
    name = f"not_worse_on[{group}]"
    if not mask.any():
        return GateResult(name, True, f"there are no {group} images to judge", {"n": 0})
    part = paired.only(mask)
    return _not_worse(name, part, f"on {group}", metric if defined(part, metric) else "accuracy", margin)


def _not_worse(name: str, paired: Paired, where: str, metric: str, margin: float) -> GateResult:
    if metric == "accuracy":
        before, after = rights(paired)
        return not_worse_share(name, before, after, f"{where} accuracy", margin)
    drawn = differences(paired, metric)
    spread = float(drawn.std())
    return judged(
        name,
        f"{where} {spoken_metric(metric)}",
        values(paired, metric),
        low=float(np.quantile(drawn, LEVEL)),
        worsening=float((1 + np.count_nonzero(drawn >= 0)) / (1 + len(drawn))),
        enough=(z_of(1 - LEVEL) + z_of(POWER)) * spread <= margin,
        margin=margin,
        numbers={"n": len(paired.labels), "metric": metric},
    )


def not_worse_share(name: str, before: Mask, after: Mask, what: str, margin: float) -> GateResult:
    """The rule for shares of right answers to the same questions, (N,) each."""
    gained, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    return judged(
        name,
        what,
        (float(before.mean()), float(after.mean())),
        low=paired_lower_bound(gained, lost, n, z_of(1 - LEVEL)),
        worsening=sign_test(lost, gained),
        enough=can_bound(gained, lost, n, margin),
        margin=margin,
        numbers={"gained": gained, "lost": lost, "n": n, "metric": "accuracy"},
    )


def judged(
    name: str,
    what: str,
    values: tuple[float, float],
    *,
    low: float,
    worsening: float,
    enough: bool,
    margin: float,
    numbers: dict[str, Any],
) -> GateResult:
    """The rule itself: `low` bounds the difference from below, `worsening` is the p-value of one."""
    if not margin > 0:
        raise InvalidInput(f"the margin is {margin}; it says how much worse is still equal, so more than 0")
    bounded = enough or low > -margin
    passed = low > -margin if bounded else worsening > LEVEL
    before, after = values
    if bounded:
        rule = f"the difference is at least {low:+.3f} with 95 % confidence, allowed is {-margin:+.3f}"
    else:
        rule = f"p of a worsening {worsening:.2g}, too few images to bound it to {margin:g}"
    return GateResult(
        name,
        passed,
        f"{what} {before:.3f} became {after:.3f} (n = {numbers['n']}; {rule})",
        numbers
        | {
            "p_worse": worsening,
            "before": before,
            "after": after,
            "low": low,
            "margin": margin,
            "rule": "non-inferiority" if bounded else "no significant worsening",
        },
    )
