"""The report as one HTML page: no script, nothing loaded from elsewhere, light or dark."""

from __future__ import annotations

from autovision.demo.result import DemoResult
from autovision.demo.sections import (
    comparison,
    costs,
    decisions,
    drift,
    examples,
    headline,
    percent,
    timeline,
)
from autovision.records.models import ModelVersion
from autovision.report.document import document
from autovision.report.search_sections import lineage_section, searches_section
from autovision.report.svg import Markup, join, tag


def render(result: DemoResult) -> str:
    """The whole page. Every text from outside is escaped."""
    return document(
        title=f"AutoVision demo: poly accuracy {percent(result.before.poly.accuracy.value)} to "
        f"{percent(result.after.poly.accuracy.value)}",
        header=headline(result),
        main=join(
            [
                comparison(result),
                timeline(result),
                searches_section(result.searches),
                drift(result),
                decisions(result),
                examples(result),
                costs(result),
                lineage_section(_models(result)),
            ]
        ),
        footer=_footer(result),
    )


def _models(result: DemoResult) -> list[tuple[str, ModelVersion]]:
    before = [("before", result.before.model)]
    return [*before, ("after", result.after.model)] if result.replaced else before


def _footer(result: DemoResult) -> Markup:
    return tag(
        "footer",
        tag(
            "p",
            "Data sets, searches, trials, models, captured requests, labels, drift reports and decisions "
            "are in the store ",
            tag("code", result.store),
            ".",
        ),
    )
