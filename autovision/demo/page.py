"""The report as one HTML page: no script, nothing loaded from elsewhere, light or dark."""

from __future__ import annotations

from autovision.demo.result import DemoResult
from autovision.demo.search_sections import lineage_section, searches_section
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
from autovision.demo.style import CSS
from autovision.demo.svg import Markup, join, tag
from autovision.records import ModelVersion

# The browser itself enforces that the page asks nobody for anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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


def document(*, title: str, header: Markup, main: Markup, footer: Markup) -> str:
    """A self-contained page with the report's style."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(CSS)),
    )
    body = tag("body", header, tag("main", main), footer)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


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
