"""What commands print: the answer on stdout, for people or for machines, and everything else on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from autovision.api import AutoVision


REFUSED = 8
"""exit code where the gates refused a promotion, or int8"""
_WHOLE = 40
"""characters up to which an id is never broken"""


@dataclass(frozen=True)
class Output:
    """Where the answer of one command goes, and where its remarks do."""

    as_json: bool
    stream: TextIO
    """stdout, which nothing but the answer may reach"""
    out: Console
    err: Console

    def answer(self, machine: Any, *human: RenderableType) -> None:
        """The answer: as one JSON document, or as what a person reads."""
        if self.as_json:
            self.stream.write(to_json(machine) + "\n")
        else:
            for part in human:
                self.out.print(text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))
        self.stream.flush()

    def note(self, line: str) -> None:
        """A remark, on stderr."""
        self.err.print(text(line), soft_wrap=True)


@contextmanager
def answering(as_json: bool) -> Iterator[Output]:
    """Keeps stdout for the answer alone: what libraries print goes to stderr meanwhile."""
    stream = sys.stdout
    with redirect_stdout(sys.stderr):
        yield Output(as_json, stream, console(stream), console(sys.stderr))


def console(stream: TextIO) -> Console:
    """A console that prints names from outside as they are: no markup, no emoji codes."""
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False)


def library(store: str | Path | None) -> AutoVision:
    """The Python API on a store. Imported here, since it needs seconds."""
    from autovision.api import AutoVision

    return AutoVision(store)


# ----------------------------------------------------------------------------------------- for machines


def to_json(value: Any) -> str:
    """ASCII, so that any terminal and any locale can carry it; what is not finite becomes null."""
    return json.dumps(plain(value), indent=2, allow_nan=False)


def plain(value: Any) -> Any:
    """Records, times and paths as JSON has them."""
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


# ------------------------------------------------------------------------------------------- for people


def printable(value: str) -> str:
    """`value` with everything that could steer a terminal, or that none can show, written as an escape."""
    return "".join(char if char.isprintable() or char in "\n\t" else _escaped(char) for char in value)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def text(value: Any, style: str = "") -> Text:
    """Any value as text without markup."""
    from rich.text import Text

    return Text(printable(str(value)), style=style)


def heading(name: str) -> Text:
    """What stands above a part of a long answer."""
    return text(f"\n{name}", "bold")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> Table:
    """A table. A column whose name begins with `>` is of numbers, with `!` of ids to be copied.

    Ids keep to one line unless they are very long; any other word too long for its column is broken.
    """
    from rich import box
    from rich.table import Table

    made = Table(
        title=None if title is None else text(title),
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    lines = [[cell(value) for value in row] for row in rows]
    for index, name in enumerate(columns):
        longest = max((line[index].cell_len for line in lines), default=0)
        made.add_column(
            text(name.lstrip(">!")),
            justify="right" if name[:1] == ">" else "left",
            no_wrap=name[:1] == "!" and longest <= _WHOLE,
            overflow="fold",
        )
    for line in lines:
        made.add_row(*line)
    return made


def facts(pairs: Mapping[str, Any]) -> Table:
    """Names and values, one pair a line; pairs without a value are left out."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", overflow="fold")
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None and value != "":
            made.add_row(text(name), cell(value))
    return made


def cell(value: Any) -> Text:
    """One cell of a table: nothing for None, times to the second and in UTC, floats in few digits."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if value is None:
        return text("")
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    if hasattr(value, "strftime"):
        return text(f"{value:%Y-%m-%d %H:%M:%S}")
    if isinstance(value, bool):
        return text("yes" if value else "no")
    return text(f"{value:.4g}" if isinstance(value, float) else value)


# ------------------------------------------------------------------------------------------------ files


def check_output_file(path: Path, *, option: str) -> None:
    """Raises `InvalidInput` for a file that could not be written, before the work that it is to hold."""
    import os

    from autovision.errors import InvalidInput

    folder = path.parent
    if path.is_dir():
        raise InvalidInput(f"{option} {str(path)!r} is a folder; name a file")
    if not folder.is_dir():
        raise InvalidInput(f"{option} {str(path)!r}: there is no folder {str(folder)!r}; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(f"{option} {str(path)!r} may not be written; choose another place")


def write_file(path: Path, content: str, *, option: str) -> None:
    """Write a file; raises `InvalidInput` that names the option and the fault."""
    from autovision.errors import InvalidInput

    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{option} {str(path)!r} cannot be written: {error.strerror}; choose another place"
        ) from error
