"""The plant's cells: which part of them plays which role. Nothing is ever in two roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autovision.dataset.elpv import load_elpv
from autovision.dataset.importer import SourceImage
from autovision.demo.result import Part
from autovision.records.datasets import DatasetVersion, Split

MONO_TRAFFIC = 120
"""cells that production sends before anything changes; never imported"""
POLY_TRAFFIC = 900
POLY_LABELLED = 450
"""of the poly traffic: labels arrive for so many, late"""


@dataclass(frozen=True)
class Cells:
    """All 2,624 cells by role. Each is the source of one image with its true label."""

    development: list[SourceImage]
    """mono: version 1 of the data set"""
    mono_traffic: list[SourceImage]
    poly_traffic: list[SourceImage]
    poly_held_out: list[SourceImage]
    """the report's measure: never sent, never labelled, never trained on"""


def share_out(seed: int) -> Cells:
    """Share the cells out at random; the same seed gives the same shares."""
    rng = np.random.default_rng(seed)
    every = load_elpv()
    mono, poly = (
        [each for each in every if each.metadata["cell_type"] == cell_type] for cell_type in ("mono", "poly")
    )
    mono, poly = _shuffled(mono, rng), _shuffled(poly, rng)
    return Cells(
        development=mono[MONO_TRAFFIC:],
        mono_traffic=mono[:MONO_TRAFFIC],
        poly_traffic=poly[:POLY_TRAFFIC],
        poly_held_out=poly[POLY_TRAFFIC:],
    )


def held_out(cells: Cells, mono_test: Sequence[SourceImage]) -> list[SourceImage]:
    """The cells of the before-and-after table: mono from version 1's test split, and all held-out poly."""
    return [replace(each, split=Split.TEST) for each in [*mono_test, *cells.poly_held_out]]


def parts(cells: Cells, version: DatasetVersion, labelled: int) -> tuple[Part, ...]:
    """How many cells play each role, for the report."""
    uses = {
        "train": "mono, version 1: fitted on",
        "validation": "mono, version 1: chosen on",
        "test": "mono, version 1: the gate's test, and held-out mono of the table; never fitted on",
    }
    found = [
        Part(
            name=f"mono {split}",
            n=sum(version.counts[split].values()),
            defective=version.counts[split].get("defective", 0),
            use=use,
        )
        for split, use in uses.items()
    ]
    return (
        *found,
        _part("mono traffic", cells.mono_traffic, "sent to the server; no labels"),
        _part("poly traffic", cells.poly_traffic, f"sent to the server; late labels for {labelled} of them"),
        _part(
            "poly held out", cells.poly_held_out, "held-out poly of the table; never sent, never trained on"
        ),
    )


def _part(name: str, cells: Sequence[SourceImage], use: str) -> Part:
    return Part(name=name, n=len(cells), defective=sum(each.label == "defective" for each in cells), use=use)


def _shuffled(cells: list[SourceImage], rng: np.random.Generator) -> list[SourceImage]:
    return [cells[i] for i in rng.permutation(len(cells))]
