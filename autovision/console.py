"""What the terminal shows while something runs, shared by the commands and the demo.

On a terminal a search is a live panel; in a pipe or in CI it is a plain line now and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autovision.search.progress import ProgressEvent
from autovision.space.config import TrialConfig

PLAIN_INTERVAL_S = 5.0
"""least time between two plain lines, unless the best improves"""

SPARKLINE_WIDTH = 24
"""characters"""

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*#@"
_SHORT_NAMES = {
    "resolution": "px",
    "drop_stages": "drop",
    "head_width": "width",
    "layer_decay": "decay",
    "backbone_lr_ratio": "backbone lr ratio",
    "class_weighting": "classes",
    "confidence_weighting": "by confidence",
    "test_time_augmentation": "test-time",
    "label_smoothing": "smoothing",
    "weight_decay": "wd",
    "batch_size": "batch",
}


def format_seconds(seconds: float) -> str:
    """`8.3 s`, `47 s`, `2 min`, `2 min 05 s` or `1 h 04 min`; `?` if it is not finite."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s".removesuffix(" 00 s")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_value(value: Any) -> str:
    """A parameter's value in few characters: floats to three digits, the rest as they are."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_config(config: Mapping[str, Any]) -> str:
    """One line for a configuration: its backbone, then whatever differs from the defaults."""
    defaults = {name: field.default for name, field in TrialConfig.model_fields.items()}
    parts = [str(config["backbone"]).removeprefix("tf_")] if "backbone" in config else []
    for name, value in config.items():
        if name == "backbone" or value == defaults.get(name, object()):
            continue
        if isinstance(value, str) and name in ("head", "augmentation", "optimizer", "pooling"):
            parts.append(value)
        elif value is True:
            parts.append(_SHORT_NAMES.get(name, name))
        else:
            parts.append(f"{_SHORT_NAMES.get(name, name)} {format_value(value)}")
    return " · ".join(parts)


def resample(history: Sequence[tuple[float, float]], width: int) -> list[float]:
    """`history`, (time, value) pairs in order of time, as a step function at `width` even times."""
    if not history or width < 1:
        return []
    first, last = history[0][0], history[-1][0]
    values, position = [], 0
    for column in range(width):
        moment = first + (last - first) * (column / (width - 1) if width > 1 else 1.0)
        while position + 1 < len(history) and history[position + 1][0] <= moment + 1e-9:
            position += 1
        values.append(history[position][1])
    return values


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """One character per value, low to high; values that are not finite are spaces."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return " " * len(values)
    low, span = min(known), max(known) - min(known)

    def character(value: float) -> str:
        if not math.isfinite(value):
            return " "
        level = (value - low) / span if span else 0.5
        return blocks[min(len(blocks) - 1, int(level * len(blocks)))]

    return "".join(character(value) for value in values)


class SearchProgress:
    """Shows a running search: trials, the best so far and its configuration, seconds left.

    Use it as a context manager, or call `close` at the end. `clock` counts seconds; it only lets the
    display's seconds run on between two events.
    """

    def __init__(
        self, budget_s: float, console: Console, metric: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._metric = metric
        self._clock = clock
        self._event = ProgressEvent(elapsed_s=0.0, budget_s=budget_s)
        self._received = clock()
        self._history: list[tuple[float, float]] = []
        self._pending: list[str] = []
        self._printed: ProgressEvent | None = None
        self._live: Live | None = None
        self._closed = False

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._closed and self._live is None:
            self._live = Live(
                get_renderable=self.render, console=self._console, refresh_per_second=4, transient=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, event: ProgressEvent) -> None:
        """Show `event`. After `close` it does nothing."""
        if self._closed:
            return
        value = event.best_value
        improved = value is not None and math.isfinite(value) and value != self._event.best_value
        if improved and value is not None:
            self._history.append((event.elapsed_s, value))
        self._event, self._received = event, self._clock()
        if self._console.is_terminal:
            self.__enter__()
            self._show_live(event)
        else:
            self._show_plain(event, improved=improved)

    def close(self) -> None:
        """Leave the last state on the screen. May be called more than once."""
        if self._closed:
            return
        self._closed = True
        if self._live is not None:
            self._live.refresh()
            self._live.stop()
        elif self._pending or (self._printed is not None and _counts(self._event) != _counts(self._printed)):
            self._print_line(self._event)

    # ------------------------------------------------------------------------------------------ plain

    def _show_plain(self, event: ProgressEvent, *, improved: bool) -> None:
        if event.message and event.message not in self._pending:
            self._pending.append(event.message)
        last = self._printed
        due = last is None or event.elapsed_s - last.elapsed_s >= PLAIN_INTERVAL_S
        changed = last is None or _counts(event) != _counts(last) or bool(self._pending)
        if improved or (due and changed):
            self._print_line(event)

    def _print_line(self, event: ProgressEvent) -> None:
        best = f"best {self._metric} {event.best_value:.4f}" if _known(event.best_value) else "no value yet"
        others = [(event.paused, "paused"), (event.late, "out of time")]
        more = "".join(f", {count} {name}" for count, name in others if count)
        if event.more:
            more += f", about {event.more} to come"
        line = (
            f"[{event.elapsed_s:5.0f} s of {event.budget_s:.0f} s] trials: {event.complete} complete, "
            f"{event.pruned} pruned, {event.failed} failed, {event.running} running{more}; {best}"
        )
        if _known(event.best_value) and event.best_config:
            line += f" ({short_config(event.best_config)})"
        for text in (line, *(f"    {message}" for message in self._pending)):
            self._console.print(Text(text), soft_wrap=True)
        self._pending.clear()
        self._printed = event

    # ------------------------------------------------------------------------------------------- live

    def _show_live(self, event: ProgressEvent) -> None:
        if event.message:
            self._console.print(Text(event.message, style="dim"))

    def render(self) -> RenderableType:
        """The live panel as it is now."""
        event = self._event
        ran_on = 0.0 if self._closed else max(0.0, self._clock() - self._received)
        elapsed = min(event.elapsed_s + ran_on, max(event.budget_s, event.elapsed_s))
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(
            ProgressBar(total=max(event.budget_s, 1e-9), completed=elapsed),
            f"{format_seconds(max(0.0, event.budget_s - elapsed))} left of {format_seconds(event.budget_s)}",
        )
        body = Table.grid(padding=(0, 2))
        body.add_column(style="dim", no_wrap=True)
        body.add_column(overflow="fold")
        body.add_row("trials", self._trials_line(event))
        body.add_row("best", self._best_line(event))
        if event.best_config:
            body.add_row("with", Text(short_config(event.best_config)))
        return Panel(Group(head, body), title="Search", title_align="left", border_style="blue")

    def _trials_line(self, event: ProgressEvent) -> Text:
        return Text.assemble(
            (f"{event.complete} complete", "green" if event.complete else "dim"),
            "   ",
            (f"{event.pruned} pruned", "yellow" if event.pruned else "dim"),
            *([("   ", ""), (f"{event.paused} paused", "yellow")] if event.paused else []),
            "   ",
            (f"{event.failed} failed", "red bold" if event.failed else "dim"),
            *([("   ", ""), (f"{event.late} out of time", "yellow")] if event.late else []),
            "   ",
            (f"{event.running} running", "cyan" if event.running else "dim"),
            (f"   about {event.more} to come" if event.more else "", "dim"),
        )

    def _best_line(self, event: ProgressEvent) -> Text:
        if not _known(event.best_value):
            return Text("no trial has reported yet", style="dim")
        ascii_only = self._console.options.ascii_only
        history = [*self._history, (event.elapsed_s, self._history[-1][1])]
        line = sparkline(resample(history, SPARKLINE_WIDTH), ascii_only=ascii_only)
        return Text.assemble(
            f"{self._metric} ", (f"{event.best_value:.4f}", "bold"), "  ", (line, "blue"), overflow="fold"
        )


def _counts(event: ProgressEvent) -> tuple[int, ...]:
    return (event.running, event.complete, event.pruned, event.failed, event.late)


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
