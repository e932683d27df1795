"""How the front of a search for several objectives looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autovision.cli.output import table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.search.multiobjective.front import Front


def front_table(found: Front, metric: str, search: str) -> Table:
    """Every offer, and how to register another one than the search's model."""
    rows = [
        [
            offer.trial,
            f"{offer.value:.4f}",
            *(_short(offer.costs.get(name)) for name in found.objectives),
            str(offer.config.get("backbone", "")).removeprefix("tf_"),
            offer.config.get("resolution"),
            " and ".join(["the model"] * offer.chosen + ["best bargain"] * offer.knee),
        ]
        for offer in found.offers
    ]
    title = (
        "The front: no other trial is as good in everything; "
        f"`autovision search finish {search} --trial TRIAL` registers another one"
    )
    columns = ["!trial", f">{metric}", *(f">{name}" for name in found.objectives), "backbone", ">px", ""]
    return table(columns, rows, title=title)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
