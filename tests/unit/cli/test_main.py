from __future__ import annotations

import io
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from autovision.cli import dataset
from autovision.cli.main import BUG, app, commands, run
from autovision.errors import Conflict

HEAVY = {"torch", "ray", "timm", "pyarrow", "openvino", "numpy", "sklearn", "pydantic", "autovision.api"}


def every_command() -> list[tuple[str, typing.Any]]:
    found = []
    for line in commands():
        command: typing.Any = get_command(app)
        for word in line.split():
            command = command.commands[word]
        found.append((line, command))
    return found


def test_the_commands_are_those_that_others_script_against() -> None:
    assert commands() == [
        *("dataset import", "dataset list", "dataset show"),
        *("weights import", "weights list", "weights show"),
        *("search submit", "search estimate", "search list", "search queue", "search show", "search watch"),
        *("search explain", "search stop", "search resume", "search finish"),
        *("model list", "model show", "model evaluate", "model export", "model quantize"),
        *(
            "promote",
            "rollout show",
            "rollout policy",
            "rollout gates",
            "rollout advance",
            "rollout approve",
            "rollout reject",
        ),
        *("rollback", "serve", "token create", "token list", "token revoke"),
        *("predict", "capture policy", "capture forget", "feedback"),
        *("labels show", "labels review", "labels import", "monitor", "adapt"),
        *("policy apply", "policy show", "policy diff"),
        *("controller run", "controller why", "controller trigger", "report", "service run", "service audit"),
        *("store check", "store gc", "store copy", "demo"),
    ]


@pytest.mark.parametrize(("line", "command"), every_command(), ids=commands())
def test_help_names_every_option_and_argument(
    line: str, command: typing.Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*line.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"autovision {line}" in shown
    for parameter in command.params:
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        assert all(name in shown for name in names), parameter.name
        assert parameter.help, f"{line}: {parameter.name} is not explained"


@pytest.mark.parametrize(("line", "command"), every_command(), ids=commands())
def test_every_command_takes_a_store_and_a_form_for_machines(line: str, command: typing.Any) -> None:
    options = {name for parameter in command.params for name in parameter.opts}
    assert "--json" in options
    if line == "store copy":  # names two of them
        return
    store = next(parameter for parameter in command.params if "--store" in parameter.opts)
    assert store.envvar == "AUTOVISION_STORE"


@pytest.mark.parametrize("line", ["", "dataset", "search", "model", "token", "controller", *commands()])
def test_help_lines_fit_80_columns(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    run([*line.split(), "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_groups_without_a_command_show_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "dataset" in capsys.readouterr().out
    groups = [name for name, child in get_command(app).commands.items() if isinstance(child, TyperGroup)]  # type: ignore[attr-defined]
    for group in groups:
        assert run([group]) == 2
        assert f"Usage: autovision {group}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["search", "submit", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom autovision.cli.main import run\n"
        f"assert run({arguments!r}) == 0\n"
        "print('MODULES', *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.rpartition("MODULES ")[2].split())
    assert "autovision.cli.main" in loaded
    assert not loaded & HEAVY


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("autovision 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset", "impot"], "No such command 'impot'"),
        (["serch", "--help"], "No such command 'serch'"),
        (["dataset", "list", "--nope"], "--nope"),
        (["dataset", "import", "somewhere"], "--name"),
        (["dataset", "import", "somewhere", "--name", "x", "--seed", "-1"], "--seed"),
        (["dataset", "import", "somewhere", "--name", "x", "--seed", "two"], "--seed"),
        (["search", "submit"], "DATASET"),
        (["serve", "m", "--port", "http"], "--port"),
        (["demo", "--budget-s", "0"], "--budget-s"),
        (["demo", "--budget-s", "nan"], "--budget-s"),
        (["controller", "run", "--interval-s", "-1"], "--interval-s"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_one_error_and_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert said in err


@pytest.mark.parametrize("place", ["first", "last", "environment"])
def test_the_traceback_is_shown_on_request_only(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["dataset", "show", "nothing", "--store", "store"]
    assert run(line) == 3
    assert "Traceback" not in capsys.readouterr().err
    if place == "environment":
        monkeypatch.setenv("AUTOVISION_TRACEBACK", "1")
    asked = {"first": ["--traceback", *line], "last": [*line, "--traceback"], "environment": line}[place]
    assert run(asked) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: ")


def test_after_two_dashes_everything_is_an_argument(cli: typing.Any) -> None:
    ran = cli("dataset", "show", "--store", "store", "--", "--traceback", at=False)
    assert ran.code == 2
    assert "--traceback" in ran.err and "Traceback (" not in ran.err


def _failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(store: object) -> None:
        raise error

    monkeypatch.setattr(dataset, "library", fail)


def test_an_error_of_the_product_gives_its_message_and_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing_with(Conflict("[red]somebody\x1b[2J was faster[/red] :smile:"), monkeypatch)
    assert run(["dataset", "list", "--json"]) == Conflict.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: [red]somebody\\x1b[2J was faster[/red] :smile:\n"


def test_an_unknown_exception_is_called_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing_with(ZeroDivisionError("by\nzero"), monkeypatch)
    assert run(["dataset", "list"]) == BUG == 70
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "ZeroDivisionError: by zero" in err and "--traceback" in err


def test_a_file_that_the_system_refuses_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing_with(PermissionError(13, "Permission denied", "/data/labels.csv"), monkeypatch)
    assert run(["dataset", "list"]) == 1
    assert capsys.readouterr().err.startswith("error: /data/labels.csv: Permission denied")


def test_an_interruption_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing_with(KeyboardInterrupt(), monkeypatch)
    assert run(["dataset", "list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    line = [sys.executable, "-c", "from autovision.cli.main import main; main()", "demo", "--help"]
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


def test_names_that_the_terminal_cannot_show_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    _failing_with(Conflict("größer ☃"), monkeypatch)
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(shown, encoding="ascii"))
    assert run(["dataset", "list"]) == Conflict.exit_code
    assert shown.getvalue() == b"error: gr\\xf6\\xdfer \\u2603\n"
