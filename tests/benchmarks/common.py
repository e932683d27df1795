"""What the benchmarks share: options, a fresh store with the solar cells, tables, and figures as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

from autovision.dataset.elpv import load_elpv
from autovision.dataset.importer import import_images
from autovision.dataset.listing import SourceImage
from autovision.dataset.split import FRACTIONS
from autovision.model.inference import native_precision
from autovision.provenance import code_version, package_versions
from autovision.records.datasets import DatasetVersion, Split
from autovision.store.local import LocalStore

SIBLINGS = 60
"""solar cells that follow one another in the package, and come from the same modules"""

_WIDTH = 150
"""columns, where no terminal says how many there are"""


def options(description: str | None) -> argparse.ArgumentParser:
    """With the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="folder for the figures")
    parser.add_argument(
        "--quick", action="store_true", help="tiny, to see that it runs: the figures say nothing"
    )
    return parser


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "amx": torch.cpu._is_amx_tile_supported(),
        "inference_precision": native_precision(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "code": code_version(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def write_json(folder: Path | None, name: str, figures: Mapping[str, Any]) -> None:
    """`<folder>/<name>.json`, with the facts of this machine; nothing without a folder."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **figures}, indent=1, default=float)
    scratch = folder / f".{name}.json"
    scratch.write_text(text + "\n")
    scratch.replace(folder / f"{name}.json")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> None:
    """A table on the terminal, and what is to be said about it."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`min / median / max`"""
    return " / ".join(f"{x:.{digits}f}" for x in (min(values), statistics.median(values), max(values)))


def ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Pair by pair: both sides of a pair were measured one right after the other."""
    return [value / base for value, base in zip(values, bases, strict=True)]


@contextmanager
def fresh_store() -> Iterator[LocalStore]:
    """An empty store, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="autovision-bench-") as folder:
        yield LocalStore(Path(folder))


def solar_cells(*, modules: bool = False) -> list[SourceImage]:
    """All cells in the order of the package; with `modules` siblings are a group, which no split tears apart."""
    cells = load_elpv()
    if not modules:
        return cells
    return [replace(cell, group=f"module-{i // SIBLINGS:02d}") for i, cell in enumerate(cells)]


def some(cells: Sequence[SourceImage], count: int | None) -> list[SourceImage]:
    """`count` of them, spread evenly over the package; None: all."""
    if count is None or count >= len(cells):
        return list(cells)
    return [cells[i * len(cells) // count] for i in range(count)]


def import_solar_cells(
    store: LocalStore,
    name: str = "solar",
    *,
    seed: int = 0,
    count: int | None = None,
    modules: bool = False,
    fractions: Mapping[Split, float] = FRACTIONS,
    near_bits: int | None = None,
) -> DatasetVersion:
    """The cells, or `count` of them, split by `seed`, stratified by label and cell type."""
    cells = some(solar_cells(modules=modules), count)
    return import_images(
        store, name, cells, seed=seed, stratify_by="cell_type", fractions=fractions, near_bits=near_bits
    )
