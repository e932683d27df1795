"""The figures of an evaluation, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autovision.cli.output import table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.models import Evaluation, Interval

INTERVALS = ("accuracy", "balanced_accuracy", "f1", "auroc")
"""the figures that have a 95 % interval"""


def plain_figures(evaluation: Evaluation) -> dict[str, Any]:
    """Plain numbers under their names, and `<name>_interval` as [low, high] beside them."""
    found: dict[str, Any] = {"n": evaluation.n}
    intervals: dict[str, Any] = {}
    for name in INTERVALS:
        figure: Interval | None = getattr(evaluation, name)
        found[name] = None if figure is None else figure.value
        intervals[f"{name}_interval"] = None if figure is None else [figure.low, figure.high]
    return {
        **found,
        "average_precision": evaluation.average_precision,
        "log_loss": evaluation.log_loss,
        "ece": evaluation.ece,
        "majority_accuracy": evaluation.majority_accuracy,
        **intervals,
    }


def full_figures(evaluation: Evaluation) -> dict[str, Any]:
    """`plain_figures`, and what there is for each class."""
    return {
        **plain_figures(evaluation),
        "bootstrap": {
            name: [figure.value, figure.low, figure.high] for name, figure in evaluation.bootstrap.items()
        },
        "resamples": evaluation.resamples,
        "per_class_recall": evaluation.per_class_recall,
        "confusion": evaluation.confusion,
    }


def subgroups(evaluations: Mapping[str, Evaluation], split: str) -> dict[str, Evaluation]:
    """`column=value` -> its evaluation, from names of the form `split:column=value`."""
    prefix = f"{split}:"
    return {name.removeprefix(prefix): each for name, each in evaluations.items() if name.startswith(prefix)}


def figures_table(evaluations: Mapping[str, Evaluation], *, title: str | None = None) -> Table:
    """One line for each evaluation; a subgroup goes by its own name."""
    rows = [
        [
            name.partition(":")[2] or name,
            each.n,
            *(_with_interval(getattr(each, figure)) for figure in INTERVALS),
            f"{each.majority_accuracy:.3f}",
        ]
        for name, each in evaluations.items()
    ]
    columns = ["on", ">n", "accuracy", "balanced", "F1", "AUROC", "majority"]
    return table(columns, rows, title=title)


def bootstrap_table(evaluation: Evaluation, metric: str) -> Table:
    """Every figure with its bootstrap interval; that of the search's metric is marked."""
    rows = [
        [f"{name} *" if name in (metric, metric.removeprefix("neg_")) else name, *_three(figure)]
        for name, figure in evaluation.bootstrap.items()
    ]
    title = f"Bootstrap: 2.5 and 97.5 % of {evaluation.resamples:,} resamples of the images; *: searched by"
    return table(["figure", ">value", ">low", ">high"], rows, title=title)


def _three(figure: Interval) -> list[str]:
    return [f"{value:.4f}" for value in (figure.value, figure.low, figure.high)]


def classes_table(evaluation: Evaluation, classes: tuple[str, ...]) -> Table:
    """True classes down, predicted ones across, and each class's recall; that alone where labels are several."""
    if not evaluation.confusion:
        recalls = [[name, _share(evaluation.per_class_recall.get(name))] for name in classes]
        return table(["class", ">recall"], recalls)
    rows = [
        [name, *counts, _share(evaluation.per_class_recall.get(name))]
        for name, counts in zip(classes, evaluation.confusion, strict=True)
    ]
    return table(["truth \\ answer", *(f">{name}" for name in classes), ">recall"], rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _with_interval(figure: Interval | None) -> str:
    return "undefined" if figure is None else f"{figure.value:.3f}\n{figure.low:.3f}-{figure.high:.3f}"
