"""Classes that the champion does not know: they are a reason to be better, and none to be worse on the others.

Where a class is new, the champion is wrong on every image of it. That counts for being better somewhere. It must not
make up for what the challenger lost elsewhere: the gates of not being worse, of forgetting and of robustness look at
the images that have classes of both only. There a challenger that answers a new class is wrong.
"""

from __future__ import annotations

from autovision.metrics import answers, members
from autovision.promotion.gates.paired import GateResult, Paired


def new_class(paired: Paired, label: int) -> GateResult:
    """Tells what the challenger knows of a class that is new. It refuses nothing: there is nothing to lose."""
    name = paired.classes[label]
    of_class = members(paired.labels, len(paired.classes))[:, label]
    n = int(of_class.sum())
    if not n:
        return GateResult(f"new_class[{name}]", True, f"there are no {name} images to judge", {"n": 0})
    said = answers(paired.said_by_challenger, paired.labels)[:, label]
    recall, wrongly = float(said[of_class].mean()), int((said & ~of_class).sum())
    return GateResult(
        f"new_class[{name}]",
        True,
        f"{name} is new to the champion; the challenger finds {recall:.3f} of {n}, and answers it {wrongly} times "
        "where it is wrong",
        {"n": n, "recall": recall, "wrongly": wrongly},
    )
