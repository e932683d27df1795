"""Helpers for drawing: escaped elements, scales, ticks at round numbers. Pixels grow right and down."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


def minus(number: str) -> str:
    """A number in text with a true minus sign."""
    return number.replace("-", "\N{MINUS SIGN}")


def times(number: str) -> str:
    """A ratio in text: the number, then a multiplication sign."""
    return minus(number) + "\N{MULTIPLICATION SIGN}"


class Markup(str):
    """Text that is already HTML. Everything else gets escaped by `tag`."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | None) -> Markup:
    """An element. Children that are not `Markup` are escaped, and so are all attributes.

    `class_` stands for `class`, and `_` in other names for `-`; an attribute of None is left out.
    """
    rendered = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup(f"<{name}{rendered}/>" if name in _VOID else f"<{name}{rendered}></{name}>")
    return Markup(f"<{name}{rendered}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Markup:
    """Children one after another, escaped unless they are `Markup`; None is nothing."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(c) for c in children if c is not None))


_VOID = frozenset(("br", "img", "meta", "line", "rect", "circle", "path"))


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.1f}".removesuffix(".0") if math.isfinite(value) else "0"


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    return tag(
        "text", content, x=x, y=y, class_=class_ or None, text_anchor=None if anchor == "start" else anchor
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: Sequence[tuple[float, float]], class_: str, title: str = "") -> Markup:
    """A polyline through points in pixels."""
    data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", tag("title", title) if title else None, d=data, class_=class_)


def picture(width: float, height: float, label: str, *children: str) -> Markup:
    """The SVG element itself. `label` is what a screen reader says instead of it."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


# ------------------------------------------------------------------------------------------------- scales


def nice_step(span: float, count: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that cuts `span` into at most about `count` parts."""
    if not (math.isfinite(span) and span > 0):
        return 1.0
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9)))


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], in order."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def nice_range(
    values: Iterable[float], *, floor: float | None = None, ceiling: float | None = None
) -> tuple[float, float]:
    """A range with round ends that holds all finite values; (0, 1) if there are none.

    It never leaves [floor, ceiling], which therefore have to hold all values.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return (0.0, 1.0)
    low, high = min(known), max(known)
    if high - low < 1e-9 * max(1.0, abs(low)):
        margin = abs(low) * 0.1 if abs(low) > 1e-9 else 0.5
        low, high = low - margin, high + margin
    step = nice_step(high - low, 5)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    low = low if floor is None else max(low, floor)
    high = high if ceiling is None else min(high, ceiling)
    return (round(low, 12), round(high, 12)) if high > low else (low - 0.5, high + 0.5)


def tick_format(ticks: Sequence[float]) -> Callable[[float], str]:
    """Formats ticks with just as many decimals as their step needs."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=0.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 2
    return lambda value: minus(f"{value:,.{min(decimals, 6)}f}")


@dataclass(frozen=True)
class Scale:
    """Maps values onto pixels: linear after `transform`."""

    low: float
    high: float
    start: float
    """pixel of `low`"""
    end: float
    """pixel of `high`"""
    transform: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(value) - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.end - self.start)


# --------------------------------------------------------------------------------------------------- axes


def x_axis(
    scale: Scale,
    ticks: Sequence[float],
    top: float,
    bottom: float,
    label: str,
    labels: Sequence[str] | None = None,
) -> Markup:
    """Grid lines up to `top`, tick labels and the axis label below `bottom`."""
    shown = labels or [tick_format(ticks)(tick) for tick in ticks]
    parts = [line(scale(tick), top, scale(tick), bottom, "grid") for tick in ticks]
    parts += [
        text(scale(tick), bottom + 16, name, "tick", "middle")
        for tick, name in zip(ticks, shown, strict=True)
    ]
    parts.append(text((scale.start + scale.end) / 2, bottom + 34, label, "axis-label", "middle"))
    return join(parts)


def y_axis(scale: Scale, ticks: Sequence[float], left: float, right: float, label: str) -> Markup:
    """Grid lines from `left` to `right`, tick labels left of them, the axis label above."""
    name = tick_format(ticks)
    parts = [line(left, scale(tick), right, scale(tick), "grid") for tick in ticks]
    parts += [text(left - 8, scale(tick) + 4, name(tick), "tick", "end") for tick in ticks]
    parts.append(text(0, min(scale.start, scale.end) - 12, label, "axis-label"))
    return join(parts)


def nothing(width: float, height: float, label: str) -> Markup:
    """A chart without data says so."""
    return picture(
        width, height, f"{label}: no data", text(width / 2, height / 2, "no data", "tick", "middle")
    )
