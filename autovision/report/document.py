"""A report as one HTML page: no script, nothing loaded from elsewhere, light or dark."""

from __future__ import annotations

from autovision.report.style import CSS
from autovision.report.svg import Markup, tag

# The browser itself enforces that the page asks nobody for anything.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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
