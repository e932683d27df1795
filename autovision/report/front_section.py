"""The front of a search for several objectives, on a page: the metric over each cost, and a table of the offers."""

from __future__ import annotations

from autovision.report.charts import Line, Mark, trace_chart
from autovision.report.parts import HALF, WIDE, code, figure, responsive, row, section, table
from autovision.report.svg import Markup, tag
from autovision.search.multiobjective.front import Front
from autovision.search.multiobjective.objectives import COSTS


def front_section(front: Front | None, metric: str, search: str) -> Markup:
    """Nothing for a search with one objective."""
    if front is None:
        return Markup()
    width = HALF if len(front.objectives) > 1 else WIDE
    rows = [
        row(
            offer.trial,
            [
                f"{offer.value:.4f}",
                *(f"{offer.costs[name]:.4g}" if name in offer.costs else "" for name in front.objectives),
                str(offer.config.get("backbone", "")).removeprefix("tf_"),
                " and ".join(["the model"] * offer.chosen + ["best bargain"] * offer.knee),
            ],
            numbers=range(1, 2 + len(front.objectives)),
            class_="changed" if offer.chosen else "",
        )
        for offer in front.offers
    ]
    heads = ["trial", metric, *(f"{name}" for name in front.objectives), "backbone", ""]
    return section(
        "What there is to choose from",
        f"Trials on the front: {len(front.offers)}; no other is as good in everything. The search's model is the "
        "best in the metric on validation, or the one that judging the best once more preferred; the best "
        "bargain is farthest above the plane through the front's ends.",
        tag("div", *(_scatter(front, metric, name, width) for name in front.objectives), class_="pair"),
        tag(
            "div",
            table(heads, rows, caption="The front.", numbers=range(1, 2 + len(front.objectives))),
            tag(
                "p", "Another one is registered by ", code(f"autovision search finish {search} --trial TRIAL")
            ),
            class_="card",
        ),
    )


def _scatter(front: Front, metric: str, name: str, width: float) -> Markup:
    marks = [
        Mark(costs[name], value, "pruned", f"{metric} {value:.4f}, {name} {costs[name]:.4g}")
        for value, costs in front.others
        if name in costs
    ]
    offers = sorted((o.costs[name], o.value, o.trial) for o in front.offers if name in o.costs)
    marks += [
        Mark(cost, value, "complete", f"{trial}: {metric} {value:.4f}, {name} {cost:.4g}")
        for cost, value, trial in offers
    ]
    # With more than two objectives, what is on the front is no line in any of these views.
    lines = [Line([(cost, value) for cost, value, _ in offers], "best")] if len(front.objectives) == 1 else []
    return figure(
        f"{metric} and {name}",
        "Discs are on the front, crosses are not.",
        responsive(
            lambda wide: trace_chart(
                lines,
                marks,
                width=wide,
                height=300,
                label=f"{metric} over {name}",
                x_label=f"{name.removesuffix('_ms').removesuffix('_mb')}, {COSTS[name]}",
                y_label=metric,
            ),
            width,
        ),
    )
