"""Pieces of HTML that the report's sections are built of. Everything that is not `Markup` gets escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autovision.report.charts import MarkKind, mark_shape
from autovision.report.svg import Markup, join, tag

WIDE, HALF, NARROW = 1080.0, 510.0, 340.0
"""pixels that a drawing has: a whole row, half a row, a phone"""


def responsive(draw: Callable[[float], Markup], width: float = WIDE) -> Markup:
    """The same drawing twice, for desktop and phone; the style sheet shows one of them."""
    return join([tag("div", draw(width), class_="wide"), tag("div", draw(NARROW), class_="narrow")])


def figure(title: str, caption: str | Markup, *content: str | None) -> Markup:
    return tag("figure", tag("h3", title), tag("figcaption", caption), *content, class_="card")


def section(title: str, lead: str, *content: str | None) -> Markup:
    return tag("section", tag("h2", title), tag("p", lead, class_="lead soft"), *content)


def table(
    head: Sequence[str],
    rows: Sequence[Markup],
    *,
    caption: str = "",
    class_: str = "",
    numbers: range = range(0),
) -> Markup:
    """A table that scrolls by itself on a narrow screen. `numbers`: the columns that hold numbers."""
    cells = [
        tag("th", name, scope="col", class_="number" if column in numbers else None)
        for column, name in enumerate(head)
    ]
    content = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", *cells)),
        tag("tbody", *rows),
        class_=class_ or None,
    )
    # A region that scrolls has to be reachable by keyboard.
    name = caption or " ".join(filter(None, head))
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def row(head: str, cells: Sequence[str], *, class_: str = "", numbers: range = range(0)) -> Markup:
    """A row: a heading, which is column 0, and its cells."""
    body = [
        tag("td", cell, class_="number" if column in numbers else None)
        for column, cell in enumerate(cells, start=1)
    ]
    return tag("tr", tag("th", head, scope="row"), *body, class_=class_ or None)


def code(value: str) -> Markup:
    return tag("code", value)


def legend(entries: Sequence[tuple[Markup, str]]) -> Markup:
    return tag("ul", *(tag("li", swatch, name) for swatch, name in entries), class_="legend")


def swatch(*content: Markup) -> Markup:
    """A legend's sample, 18 by 14 pixels."""
    return tag("svg", *content, viewBox="0 0 18 14", width=18, height=14, aria_hidden="true")


def mark_swatch(kind: MarkKind) -> Markup:
    return swatch(mark_shape(9, 7, kind))


def line_swatch(class_: str) -> Markup:
    return swatch(tag("line", x1=1, x2=17, y1=7, y2=7, class_=class_))


def rule_swatch(class_: str) -> Markup:
    return swatch(tag("line", x1=9, x2=9, y1=0, y2=14, class_=class_))


def dot_swatch(name: str) -> Markup:
    return swatch(
        tag("line", x1=1, x2=17, y1=7, y2=7, class_=f"whisker {name}"),
        tag("circle", cx=9, cy=7, r=5, class_=f"dot {name}"),
    )
