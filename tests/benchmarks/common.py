"""What the benchmarks share: options, the solar cells, spreads, and results as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from autovision.dataset.elpv import load_elpv
from autovision.dataset.importer import import_images
from autovision.records import DatasetVersion
from autovision.store.open import open_store
from autovision.store.protocol import Store

PACKAGES = ("torch", "torchvision", "timm", "ray", "optuna", "openvino", "numpy")


def options(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has: `--json` and `--quick`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="DIR", help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="a short run, which shows that it works")
    return parser


def solar_cells(folder: Path, *, every: int = 1) -> tuple[Store, DatasetVersion, float]:
    """A fresh store in `folder` with every `every`-th solar cell, split from seed 0; and the seconds it took.

    Splits are stratified by label and cell type.
    """
    store = open_store(folder)
    began = time.perf_counter()
    cells = import_images(store, "solar", load_elpv()[::every], seed=0, stratify_by="cell_type")
    return store, cells, time.perf_counter() - began


def machine() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`min / median / max` of a few measurements."""
    three = (min(values), statistics.median(values), max(values))
    return " / ".join(f"{value:.{digits}f}" for value in three)


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> None:
    """Print a table."""
    table = Table(title=title, caption=caption or None, caption_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


def write(folder: Path | None, name: str, figures: dict[str, Any]) -> None:
    """The figures as `folder/name.json`, with what the machine is; nothing without a folder."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    body = {"machine": machine(), **figures}
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
