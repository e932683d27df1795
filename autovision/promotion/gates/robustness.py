"""Robustness: on images that a camera spoilt a little, a challenger is not worse than the champion, either."""

from __future__ import annotations

from autovision.promotion.gates.not_worse import not_worse_share
from autovision.promotion.gates.paired import GateResult, Paired, rights


def as_robust(paired: Paired, corrupted: Paired, kind: str, *, margin: float) -> GateResult:
    """Whether its accuracy on images with one corruption is not worse, by the rule of `not_worse`.

    What counts is the accuracy that is left, not what was lost: a challenger that is better on clean images may lose
    more of it and still answer better. Both losses are in the numbers.

    Args:
        paired: the same images, in the same order, as they are.
        corrupted: with a corruption of this kind.
        margin: of accuracy, that the challenger may be worse.
    """
    before, after = rights(corrupted)
    found = not_worse_share(f"as_robust[{kind}]", before, after, f"accuracy with {kind}", margin)
    losses = {
        name: float(clean.mean() - spoilt.mean())
        for name, clean, spoilt in zip(
            ("lost_by_champion", "lost_by_challenger"), rights(paired), (before, after), strict=True
        )
    }
    told = (
        f"{kind} takes {100 * losses['lost_by_champion']:.1f} points from the champion and "
        f"{100 * losses['lost_by_challenger']:.1f} from the challenger"
    )
    return GateResult(found.name, found.passed, f"{found.reason}; {told}", found.numbers | losses)
