"""The program `autovision`: every command, and what becomes of an error.

A person sees `error: …` and never a stack trace, unless they ask for it with --traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup
from typer.main import get_command

from autovision.cli import (
    capture,
    controller,
    dataset,
    demo,
    deployment,
    labels,
    model,
    policy,
    predict,
    report,
    rollout,
    search,
    service,
    store,
    supervisor,
    token,
    weights,
)
from autovision.cli.output import printable
from autovision.errors import AutoVisionError, NotInstalled

PROGRAM = "autovision"
TRACEBACK = "--traceback"
TRACEBACK_VARIABLE = "AUTOVISION_TRACEBACK"

BUG = 70
"""exit code of a fault in AutoVision itself: `EX_SOFTWARE` of sysexits.h"""

# Typer keeps the class that all faults of a command line derive from in a private module.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]

ORDER = (
    *("dataset", "weights", "search", "model", "promote", "rollout", "rollback", "serve"),
    *(
        "token",
        "predict",
        "capture",
        "feedback",
        "labels",
        "monitor",
        "adapt",
        "policy",
        "controller",
        "report",
        "service",
        "store",
        "demo",
    ),
)
"""how the commands are listed: as the loop goes"""


class InOrder(TyperGroup):
    """Lists commands in their order, where Typer would list single commands before groups."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=InOrder, name=PROGRAM, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.add_typer(dataset.app, name="dataset")
app.add_typer(weights.app, name="weights")
app.add_typer(search.app, name="search")
app.add_typer(model.app, name="model")
app.command("promote")(deployment.promote)
app.command("rollback")(deployment.rollback)
app.add_typer(rollout.app, name="rollout")
app.command("serve")(deployment.serve)
app.add_typer(token.app, name="token")
app.command("predict")(predict.predict)
app.add_typer(capture.app, name="capture")
app.command("feedback")(deployment.feedback)
app.add_typer(labels.app, name="labels")
app.command("monitor")(deployment.monitor)
app.command("adapt")(deployment.adapt)
app.add_typer(policy.app, name="policy")
app.add_typer(controller.app, name="controller")
app.command("report")(report.report)
app.add_typer(service.app, name="service")
app.add_typer(store.app, name="store")
app.command("demo")(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"{PROGRAM} {metadata.version(PROGRAM)}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    show_traceback: Annotated[
        bool,
        typer.Option(TRACEBACK, envvar=TRACEBACK_VARIABLE, help="Show where an error came from."),
    ] = False,
) -> None:
    """Labelled images in, a served model out, and it stays good.

    `autovision demo` shows the whole loop on real images. With your own: `dataset import`, `search submit`,
    `promote`, `serve`, `feedback`; then `controller run` watches, and searches again when it has to.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> NoReturn:
    """The entry point."""
    arguments = sys.argv[1:]
    sys.exit(supervisor.supervise(arguments) if supervisor.is_due(arguments) else run(arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code.

    0: done; 1: done in part, or failed, or a difference was found; 2: bad input; 3: not found; 4: conflict;
    5: the store; 6: weights; 7: the server did not start; 8: refused by the gates; 70: a bug; 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding cannot show is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments, with_traceback = _take_traceback(arguments)
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_pipe(sys.stdout)
        return 1
    except KeyboardInterrupt:
        _complain("interrupted; what was done is kept, and the same command goes on from there")
        return 130
    except Exception as error:  # noqa: BLE001 - the last resort: whatever happens, no stack trace unasked
        if with_traceback:
            traceback.print_exception(error, file=sys.stderr)
        return _report(error)


def commands() -> list[str]:
    """Every command as it is typed, e.g. `dataset import`, in the order of `--help`."""
    return list(_walk(get_command(app), ()))


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(command, TyperGroup):
        yield " ".join(path)
        return
    for name in command.list_commands(typer.Context(command)):
        yield from _walk(command.commands[name], (*path, name))


def _invoke(arguments: list[str]) -> int:
    command = get_command(app)
    if (asked := _help_asked_for(command, arguments)) is not None:
        typer.echo(asked)
        return 0
    try:
        # Not `command()`: that would print errors in its own way, and lose the difference between them.
        with command.make_context(PROGRAM, arguments) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    return 0


def _help_asked_for(command: Any, arguments: Sequence[str]) -> str | None:
    """The help text if there is `--help`. Typer's own way to it parses first, which needs twice the time."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--help" not in words:
        return None
    context = typer.Context(command, info_name=PROGRAM)
    for word in words:
        if not isinstance(command, TyperGroup) or word not in command.commands:
            break
        command = command.commands[word]
        context = typer.Context(command, parent=context, info_name=word)
    # An unknown command before `--help` is for the parser to refuse.
    known = not isinstance(command, TyperGroup) or word == "--help"
    return context.get_help() if known else None


def _take_traceback(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Errors say "again with --traceback", and people add it at the end: it may stand anywhere."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    asked = TRACEBACK in arguments[:end]
    wanted = asked or os.environ.get(TRACEBACK_VARIABLE, "").lower() not in ("", "0", "false", "no")
    kept = [each for each in arguments[:end] if each != TRACEBACK]
    return [*kept, *arguments[end:]], wanted


def _report(error: Exception) -> int:
    """Print one message for an error; its exit code."""
    if isinstance(error, ModuleNotFoundError) and _is_foreign(error.name):
        error = NotInstalled(
            f"this command needs {error.name!r}, which is not installed here; `pip install 'autovision[full]'`, or "
            "give --address where a command takes it, so that an API service does the work"
        )
    if isinstance(error, AutoVisionError):
        _complain(str(error))
        return error.exit_code
    if isinstance(error, _CommandLineError):
        return _report_usage(error)
    if isinstance(error, OSError) and error.filename is not None:
        _complain(f"{error.filename!s}: {error.strerror}; check the path and your rights")
        return 1
    said = " ".join(str(error).split())[:300]
    _complain(
        f"a bug in AutoVision: {type(error).__name__}: {said}; run it again with {TRACEBACK} and report it"
    )
    return BUG


def _is_foreign(module: str | None) -> bool:
    """Whether a module is one of somebody else's, which may be missing; a missing one of ours would be a bug."""
    return module is not None and module.partition(".")[0] not in ("autovision", "search_spaces")


def _report_usage(error: Any) -> int:
    context = error.ctx
    message = error.format_message()
    if context is not None and not message.strip():
        return 2
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
        return 2
    hint = f"; see `{context.command_path} --help`" if context is not None else ""
    _complain(message.strip().removesuffix(".") + hint)
    return int(error.exit_code)


def _complain(message: str) -> None:
    print(f"error: {printable(message)}", file=sys.stderr, flush=True)


def _forget_pipe(stream: TextIO) -> None:
    """Whoever read the output is gone; Python must not try to flush to them when it ends."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
