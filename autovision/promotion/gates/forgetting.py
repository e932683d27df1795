"""No forgetting: a challenger that learnt something new still knows each class."""

from __future__ import annotations

from autovision.metrics import Mask, answers, members
from autovision.promotion.gates.not_worse import MARGIN, not_worse_share
from autovision.promotion.gates.paired import GateResult, Paired, said_by_champion
from autovision.significance import f1_gain_lower_bound


def no_forgetting(paired: Paired, label: int, *, margin: float = MARGIN) -> GateResult:
    """Whether the recall of one class is not worse, by the rule above.

    A champion that gives an answer far too often has a high recall without knowing the class. A loss
    of recall is therefore forgiven where it buys more than it costs: where the class's F1 is better
    with 95 % confidence.
    """
    y, champion, class_name = paired.labels, said_by_champion(paired), paired.classes[label]
    name = f"no_forgetting[{class_name}]"
    of_class = members(y, len(paired.classes))[:, label]
    if not of_class.any():
        return GateResult(name, True, f"there are no {class_name} images to judge", {"n": 0})
    before, after = (answers(said, y)[:, label] for said in (champion, paired.said_by_challenger))
    recall = not_worse_share(
        name, before[of_class], after[of_class], f"in the recall of {class_name}", margin
    )
    if recall.passed:
        return recall
    gain = f1_gain_lower_bound(of_class, before, after)
    numbers = recall.numbers | {"f1_before": _f1(of_class, before), "f1_after": _f1(of_class, after)}
    change = f"its F1 goes from {numbers['f1_before']:.3f} to {numbers['f1_after']:.3f}"
    bound = f"a change of at least {gain:+.3f} with 95 % confidence"
    verdict = "it was answered too often before" if gain > 0 else "so precision does not make up for it"
    return GateResult(
        name, gain > 0, f"{recall.reason}; {change}, {bound}: {verdict}", numbers | {"f1_gain_low": gain}
    )


def _f1(actual: Mask, answered: Mask) -> float:
    total = int(actual.sum() + answered.sum())
    return 2 * int((actual & answered).sum()) / total if total else 0.0
