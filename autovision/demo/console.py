"""The report in a terminal: before and after, what triggered what, seconds, cells, and a frank verdict."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from autovision.console import format_seconds
from autovision.demo.result import CELL_TYPES, MEASURES, DemoResult
from autovision.demo.timeline import chapters
from autovision.demo.verdict import judge
from autovision.records.models import Interval

_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "f1": "defect-class F1"}


def print_report(result: DemoResult, console: Console) -> None:
    """Print the whole report."""
    console.print(report(result))


def report(result: DemoResult) -> RenderableType:
    """The whole report, as something that rich can print."""
    blocks: list[RenderableType] = [
        comparison(result),
        what_happened(result),
        decisions(result),
        seconds(result),
        cells(result),
        whereabouts(result),
        verdict(result),
    ]
    return Group(*(Padding(block, (1, 0, 0, 0)) for block in blocks))


def comparison(result: DemoResult) -> Table:
    """Both models on held-out mono and poly cells."""
    table = _table("Held-out cells, with 95 % intervals")
    table.add_column("cells")
    table.add_column("measure")
    table.add_column(Text(f"before\n{result.before.model.id}"), overflow="fold")
    table.add_column(Text(f"after\n{result.after.model.id}"), overflow="fold")
    table.add_column("n", justify="right")
    for cell_type in CELL_TYPES:
        before, after = result.before.on(cell_type), result.after.on(cell_type)
        for index, measure in enumerate(MEASURES):
            table.add_row(
                cell_type if index == 0 else "",
                _NAMES[measure],
                Text(str(getattr(before, measure))),
                _changed(getattr(before, measure), getattr(after, measure)),
                str(after.n),
                end_section=index == len(MEASURES) - 1,
            )
    return table


def what_happened(result: DemoResult) -> RenderableType:
    """The drift windows, requests and trials in three lines."""
    trials = " + ".join(str(len(view.trials)) for view in result.searches) or "0"
    windows = ", ".join(
        f"{cell_type} {sum(report.alarm for report in result.windows(cell_type))} alarms in "
        f"{len(result.windows(cell_type))} windows"
        for cell_type in CELL_TYPES
    )
    requests = result.requests
    during = (
        f", {requests.during_promotion} while models changed" if requests.during_promotion is not None else ""
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    grid.add_row("trials", Text(trials))
    grid.add_row("drift", Text(windows))
    grid.add_row("requests", Text(f"{requests.sent} sent, {requests.failed} failed{during}"))
    return grid


def decisions(result: DemoResult) -> RenderableType:
    """What was decided and why, in order."""
    table = _table("What triggered what, and why")
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("why", overflow="fold")
    for decision in result.decisions:
        elapsed = (decision.created_at - result.started_at).total_seconds()
        table.add_row(
            format_seconds(elapsed) if elapsed >= 0 else "earlier",
            Text(decision.what if decision.accepted else f"refused: {decision.what}"),
            Text(decision.why),
        )
    return table if result.decisions else Text("No decision was taken.")


def seconds(result: DemoResult) -> Table:
    """Seconds per stage, in order, with what came out of each."""
    table = _table("Seconds per stage")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    table.add_column("outcome", overflow="fold")
    for chapter in chapters(result):
        stage = chapter.stage
        table.add_row(Text(stage.name), f"{stage.seconds:.1f}", Text(stage.detail))
    table.add_section()
    table.add_row("in all", f"{result.total_s:.1f}", format_seconds(result.total_s))
    return table


def cells(result: DemoResult) -> Table:
    """How many cells each part of the data holds."""
    table = _table("Cells per part")
    table.add_column("part")
    table.add_column("cells", justify="right")
    table.add_column("defective", justify="right")
    table.add_column("used for", overflow="fold")
    for part in result.parts:
        defective = "" if part.defective is None else str(part.defective)
        table.add_row(Text(part.name), str(part.n), defective, Text(part.use))
    return table


def whereabouts(result: DemoResult) -> RenderableType:
    """Where everything is stored."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("store", Text(result.store))
    for view in result.searches:
        grid.add_row(Text(view.title.lower()), Text(view.state.search))
    grid.add_row("model before", Text(result.before.model.id))
    grid.add_row("model after", Text(result.after.model.id if result.replaced else "the same"))
    return grid


def verdict(result: DemoResult) -> Panel:
    """One sentence that follows from the numbers."""
    judged = judge(result)
    return Panel(
        Text(judged.text),
        title="Verdict",
        title_align="left",
        border_style="green" if judged.success else "red",
    )


def _changed(before: Interval, after: Interval) -> Text:
    """The figure after, coloured where the intervals do not even touch."""
    if after.low > before.high:
        return Text(str(after), style="bold green")
    return Text(str(after), style="bold red" if after.high < before.low else "")


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
