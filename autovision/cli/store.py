"""`autovision store`: check a store, remove what nothing refers to, copy it to another back end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.options import Json, Store
from autovision.cli.output import Output, answering, facts, table

if TYPE_CHECKING:
    from autovision.store.protocol import Entry
    from autovision.upkeep.check import CheckReport, Damage
    from autovision.upkeep.transfer import Copied

app = typer.Typer(no_args_is_help=True, help="Check a store, tidy it up, and copy it elsewhere.")

_LISTED = 10
_DEFAULT_AGE_H = 24.0


@app.command()
def check(store: Store = None, as_json: Json = False) -> None:
    """Compare every object with the digest in its name, and look for what is missing and what nothing refers to.

    Reads everything and changes nothing. Exit code 5 if an object is damaged, or one that is referred to is not there.
    """
    from autovision.errors import CorruptObject
    from autovision.store import open_store
    from autovision.upkeep.check import check as check_store

    with answering(as_json) as out:
        opened = open_store(store, cached=False)
        with _bar(out, "bytes") as update:
            report = check_store(opened, progress=lambda done, total: update(done, total, ""))
        out.answer(_check_json(report), *_check_text(report))
        if not report.sound:
            raise typer.Exit(CorruptObject.exit_code)


@app.command()
def gc(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what was found; without it nothing is changed.")
    ] = False,
    older_than_hours: Annotated[
        float,
        typer.Option(
            "--older-than-hours",
            metavar="H",
            min=0.0,
            help="Leave alone what is younger: it may belong to work that is under way.",
        ),
    ] = _DEFAULT_AGE_H,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Find, and with --delete remove, what nothing refers to: leftovers of imports, searches and exports.

    Searches, servers and controllers may go on meanwhile, if none of them takes longer than the age from the first
    object that it writes to the record that names it. Frozen features are a cache with a budget of its own, and stay.
    """
    from autovision.store import open_store
    from autovision.store.sizes import readable
    from autovision.upkeep.collect import SAFE_AGE_H, collect

    with answering(as_json) as out:
        if delete and older_than_hours < SAFE_AGE_H:
            out.note(f"below {SAFE_AGE_H:g} hours this is safe only while nothing else writes to the store")
        found = collect(open_store(store, cached=False), older_than_h=older_than_hours, delete=delete)
        size, young = _size(found.removed), _size(found.young)
        done = "removed" if delete else "would be removed; nothing was changed: --delete removes it"
        out.answer(
            {
                "deleted": delete,
                "objects": [entry.key for entry in found.removed],
                "bytes": size,
                "young": [entry.key for entry in found.young],
                "unfinished_uploads": found.unfinished,
            },
            *([_entries(found.removed)] if found.removed else []),
            f"{len(found.removed)} objects, {readable(size)}: {done}",
            *([f"{len(found.young)} more, {readable(young)}, are too young"] if found.young else []),
            *([f"{found.unfinished} unfinished uploads were given up"] if found.unfinished else []),
        )


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy: a folder or a URI.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="Where to: a folder or a URI, as for --store.")
    ],
    features: Annotated[
        bool, typer.Option("--features", help="Also frozen features, which can be computed anew.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace records of DST that differ from those of SRC.")
    ] = False,
    at_once: Annotated[
        int, typer.Option("--at-once", metavar="N", min=1, max=64, help="Objects copied at once.")
    ] = 16,
    as_json: Json = False,
) -> None:
    """Copy a store to another one, of whatever kind. What is there already is left, so the same command goes on.

    Nothing may write to SRC meanwhile. Each object is read back and compared. Exit code 5 if one of SRC is damaged,
    4 if DST has another one in its place; the rest is copied all the same.
    """
    from autovision.errors import Conflict, CorruptObject
    from autovision.store import open_store
    from autovision.store.sizes import readable
    from autovision.upkeep.transfer import Outcome
    from autovision.upkeep.transfer import copy as copy_store

    with answering(as_json) as out:
        opened = open_store(source, cached=False), open_store(target, cached=False)
        with _bar(out, "objects") as update:
            copied = copy_store(
                *opened,
                workers=at_once,
                features=features,
                overwrite=overwrite,
                progress=lambda done, total, size: update(done, total, readable(size)),
            )
        out.answer(_copy_json(copied), *_copy_text(copied))
        if copied.objects[Outcome.DAMAGED]:
            raise typer.Exit(CorruptObject.exit_code)
        if copied.objects[Outcome.DIFFERS]:
            raise typer.Exit(Conflict.exit_code)


# ---------------------------------------------------------------------------------------------- helpers


@contextmanager
def _bar(out: Output, what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal; elsewhere a line at each tenth, on stderr."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from autovision.store.sizes import readable

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    tenths = 0
    with Progress(*columns, console=out.err, disable=not out.err.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, remark: str) -> None:
            nonlocal tenths
            bar.update(task, completed=done, total=total, description=f"{what} {remark}".strip())
            if not out.err.is_terminal and total and 10 * done // total > tenths:
                tenths = 10 * done // total
                whole = readable(total) if what == "bytes" else f"{total} {what}"
                out.note(f"{10 * tenths} % of {whole}{remark and f', {remark} copied'}")

        yield update


def _check_json(report: CheckReport) -> dict[str, Any]:
    return {
        "store": report.store,
        "sound": report.sound,
        "objects": report.objects,
        "bytes": report.bytes,
        "digests": report.digests,
        "damaged": [vars(each) for each in report.damaged],
        "dangling": [vars(each) for each in report.dangling],
        "orphans": [entry._asdict() for entry in report.orphans],
    }


def _check_text(report: CheckReport) -> list[Any]:
    from autovision.store.sizes import readable

    parts: list[Any] = [
        facts(
            {
                "store": report.store,
                "objects": f"{report.objects}, {readable(report.bytes)}",
                "digests compared": report.digests,
                "damaged": len(report.damaged),
                "missing": len(report.dangling),
                "referred to by nothing": f"{len(report.orphans)}, {readable(_size(report.orphans))}",
            }
        )
    ]
    parts += _damages("damaged", report.damaged) + _damages("missing", report.dangling)
    if report.damaged or report.dangling:
        parts.append(
            "Restore these objects from a backup; images, weights and data sets can be imported again. What is damaged "
            "and referred to by nothing can be removed."
        )
    if report.orphans:
        parts.append("`autovision store gc` shows what nothing refers to, and removes it with --delete.")
    return parts


def _copy_json(copied: Copied) -> dict[str, Any]:
    return {
        "objects": {outcome.value: count for outcome, count in copied.objects.items()},
        "bytes": copied.bytes,
        "problems": [vars(each) for each in copied.problems],
    }


def _copy_text(copied: Copied) -> list[Any]:
    from autovision.store.sizes import readable

    counts = ", ".join(f"{count} {outcome.value}" for outcome, count in copied.objects.items() if count)
    return [
        *_damages("not copied", copied.problems),
        f"{counts or 'nothing to copy'}; {readable(copied.bytes)} copied",
    ]


def _damages(name: str, found: Sequence[Damage]) -> list[Any]:
    if not found:
        return []
    more = f" (first {_LISTED} of {len(found)}; --json lists all)" if len(found) > _LISTED else ""
    return [table([f"{name}{more}", "why"], [[each.key, each.fault] for each in found[:_LISTED]])]


def _entries(found: Sequence[Entry]) -> Any:
    more = f" (first {_LISTED} of {len(found)}; --json lists all)" if len(found) > _LISTED else ""
    rows = [[entry.key, entry.size_bytes, entry.modified_at] for entry in found[:_LISTED]]
    return table([f"nothing refers to{more}", ">bytes", "written (UTC)"], rows)


def _size(entries: Sequence[Entry]) -> int:
    return sum(entry.size_bytes for entry in entries)
