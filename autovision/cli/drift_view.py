"""How drift reports are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from autovision.cli.output import facts, table, text

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from autovision.records.deployments import DetectorVerdict, DriftReport


def report_facts(report: DriftReport) -> list[Table]:
    """The verdict, then each detector, then what moved and which images are the most unlike."""
    rate = report.windows_per_false_alarm
    parts = [
        facts(
            {
                "verdict": "DRIFT" if report.alarm else "no drift",
                "false alarms": f"one in {rate:g} windows, or fewer"
                if rate
                else f"{report.alpha:g} of windows",
                "requests": report.n,
                "from (UTC)": report.window_start,
                "to (UTC)": report.window_end,
                "model": report.model,
                **{name.replace("_", " "): value for name, value in report.details.items()},
                **dict(_accuracies(report)),
                "stored as": report.id,
            }
        )
    ]
    if report.detectors:
        parts.append(_detectors(report))
    else:
        parts.append(facts({"score": f"{report.score:.5f}, alarm at {report.threshold:.5f}"}))
    moved = [
        [each.name, said.name, each.reference, each.window, each.n, f"{each.p_value:.2g}"]
        for said in report.alarming
        for each in said.moved
    ]
    if moved:
        parts.append(table(["what moved", "detector", ">reference", ">window", ">images", ">p"], moved))
    if report.alarm and report.unlike:
        rows = [[each.request_id, f"{each.unlikeness:.3f}", each.why] for each in report.unlike]
        parts.append(table(["!most unlike", ">unlikeness", "what is odd"], rows))
    return parts


def reports_table(reports: list[DriftReport]) -> Table:
    rows = [
        [each.id, "DRIFT" if each.alarm else "no drift", ", ".join(said.name for said in each.alarming),
         f"{each.score:.5f}", f"{each.threshold:.5f}", f"{each.p_value:.2g}", each.n, each.model]
        for each in reports
    ]  # fmt: skip
    return table(["!report", "verdict", "by", ">input score", ">alarm at", ">p", ">n", "model"], rows)


def _accuracies(report: DriftReport) -> Iterator[tuple[str, str]]:
    if (found := report.accuracy) is not None:
        yield (
            "accuracy by labels",
            f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] of {found.n}; {found.expected:.3f} expected of the "
            f"same confidences, {found.held_out:.3f} held out",
        )
    if (guess := report.estimate) is not None:
        yield (
            "accuracy without labels",
            f"about {guess.value:.3f} [{guess.low:.3f}, {guess.high:.3f}], if confidence means what it meant; "
            f"{guess.held_out:.3f} held out"
            + (
                f"; off by up to {max(map(abs, guess.tried.values())):.3f} on corrupted images"
                if guess.tried
                else ""
            ),
        )


def _detectors(report: DriftReport) -> Table:
    columns = [
        "detector",
        ">windows",
        "verdict",
        ">score",
        ">alarm at",
        ">p",
        ">alarm at p",
        ">n",
        ">reference",
    ]
    return table(columns, [_row(each) for each in report.detectors])


def _row(said: DetectorVerdict) -> list[str | int | Text]:
    return [
        said.name,
        said.windows,
        text("ALARM", "red") if said.alarm else "silent",
        f"{said.score:.4f}",
        f"{said.threshold:.4f}",
        f"{said.p_value:.2g}",
        f"{said.alpha:.2g}",
        said.n,
        said.reference_n,
    ]
