from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from autovision.cli.output import (
    answering,
    check_output_file,
    facts,
    plain,
    printable,
    table,
    to_json,
    write_file,
)
from autovision.errors import InvalidInput
from autovision.records.models import Interval
from autovision.records.trials import TrialState


def test_what_libraries_print_never_reaches_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(True) as out:
        print("chatter")
        out.note("a remark")
        out.answer({"a": 1}, "a is 1")
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout) == {"a": 1}
    assert stderr == "chatter\na remark\n"


def test_people_get_lines_that_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    line = "word " * 40 + "[bold]no markup[/bold] :smile: /a/path 12"
    with answering(False) as out:
        out.answer({"a": 1}, line)
    assert capsys.readouterr().out == line + "\n"


def test_json_holds_records_times_and_paths_and_no_number_that_json_lacks() -> None:
    value = {
        "interval": Interval(value=float("nan"), low=0.0, high=float("inf")),
        "at": datetime(2026, 3, 1, tzinfo=UTC),
        "path": Path("a/ü"),
        "state": TrialState.PRUNED,
        "nested": ({1: float("-inf")}, None, True),
    }
    assert json.loads(to_json(value)) == {
        "interval": {"value": None, "low": 0.0, "high": None},
        "at": "2026-03-01T00:00:00+00:00",
        "path": "a/ü",
        "state": "pruned",
        "nested": [{"1": None}, None, True],
    }
    assert to_json("ü\udcff").isascii()
    assert plain(1.5) == 1.5


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü ☃", "plain ü ☃"),
        ("red\x1b[31m", "red\\x1b[31m"),
        ("bytes \udcff", "bytes \\udcff"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("two\nlines", "two\nlines"),
        ("bell\x07\x9b", "bell\\x07\\x9b"),
    ],
)
def test_nothing_from_outside_steers_the_terminal(name: str, shown: str) -> None:
    assert printable(name) == shown


def _shown(part: object) -> str:
    console = Console(file=io.StringIO(), width=80, markup=False)
    console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_ids_keep_to_one_line_and_no_letter_is_lost() -> None:
    model = "solar-m-0123456789"
    shown = _shown(table(["!model", "a", "b"], [[model, "x" * 70, "y" * 30]]))
    assert any(model in line for line in shown.splitlines())
    assert shown.count("x") == 70 and shown.count("y") == 30
    assert max(map(len, shown.splitlines())) <= 80
    longest = "m" * 78
    assert _shown(table(["!model", "a"], [[longest, "z" * 40]])).count("m") == 78 + len("m")


def test_cells() -> None:
    row = [None, True, 0.123456, datetime(2026, 3, 1, 12, tzinfo=UTC), "[red]x"]
    shown = " ".join(_shown(table([">a", "b", ">c", "d", "e"], [row])).split())
    assert shown.endswith("yes 0.1235 2026-03-01 12:00:00 [red]x")


def test_facts_leave_out_what_is_not_known() -> None:
    shown = _shown(facts({"model": None, "metric": "f1", "parents": "", "n": 0}))
    assert shown.split() == ["metric", "f1", "n", "0"]


def test_an_output_file_is_checked_before_the_work(tmp_path: Path) -> None:
    check_output_file(tmp_path / "new.json", option="--json")
    for path in (tmp_path, tmp_path / "missing" / "file"):
        with pytest.raises(InvalidInput, match="--json"):
            check_output_file(path, option="--json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    write_file(tmp_path / "page.html", "ü", option="--html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "ü"
    with pytest.raises(InvalidInput, match=r"--html .*cannot be written"):
        write_file(tmp_path / "page.html" / "deeper", "", option="--html")
    with pytest.raises(InvalidInput, match="No space left"):
        write_file(Path("/dev/full"), "x" * 10_000, option="--html")


def test_stdout_is_given_back() -> None:
    before = sys.stdout
    with pytest.raises(InvalidInput), answering(True):
        raise InvalidInput("no")
    assert sys.stdout is before
