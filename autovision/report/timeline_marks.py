"""The marks of a timeline, which its legend repeats."""

from __future__ import annotations

from autovision.records.deployments import DecisionKind
from autovision.records.history import ToldDecision
from autovision.report.charts import MarkKind, mark_shape
from autovision.report.svg import Markup, tag


def meaning(decision: ToldDecision) -> str | None:
    """What the mark of a decision says; None: it has none, since nothing came of it."""
    match decision.kind:
        case DecisionKind.ROLLBACK:
            return "rolled back"
        case DecisionKind.RETRAIN:
            return "searched again" if decision.accepted else None
        case _ if decision.made_champion:
            return "became champion"
        case DecisionKind.PROMOTE if not decision.accepted:
            return "challenger refused, or waits"
        case DecisionKind.ADVANCE:
            return "rollout goes on"
    return None


_SHAPES: dict[str, MarkKind] = {
    "became champion": "complete",
    "challenger refused, or waits": "pruned",
    "searched again": "stopped",
    "rolled back": "failed",
}


def decision_mark(name: str, x: float, y: float, title: str = "") -> Markup:
    """The mark of a meaning."""
    if name in _SHAPES:
        return mark_shape(x, y, _SHAPES[name], title)
    return tag("circle", tag("title", title) if title else None, cx=x, cy=y, r=2.5, class_="mark goes-on")


def accuracy_mark(kind: str, x: float, y: float, title: str = "") -> Markup:
    """An estimate is a hollow disc, what labels say a filled square."""
    hover = tag("title", title) if title else None
    if kind == "labelled":
        return tag("rect", hover, x=x - 3.5, y=y - 3.5, width=7, height=7, class_="figure labelled")
    return tag("circle", hover, cx=x, cy=y, r=2.6, class_="figure estimated")
