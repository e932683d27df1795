"""The plant's cells: which part of them plays which role. Nothing is ever in two roles.

Nor is what is nearly the same, such as one cell out of focus: a held-out cell whose twin was labelled would flatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from autovision.dataset.elpv import load_elpv
from autovision.dataset.importer import SourceImage
from autovision.demo.result import Part
from autovision.duplicates import alike_by_hash, components, perceptual_hash
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
    """Share the cells out at random, near-duplicates together; the same seed gives the same shares."""
    rng = np.random.default_rng(seed)
    every = load_elpv()
    families = _families(every)
    mono, poly = (
        [each for each in every if each.metadata["cell_type"] == cell_type] for cell_type in ("mono", "poly")
    )
    mono_traffic, development = _apart(_shuffled(mono, rng), MONO_TRAFFIC, families)
    poly_traffic, poly_held_out = _apart(_shuffled(poly, rng), POLY_TRAFFIC, families)
    return Cells(development, mono_traffic, poly_traffic, poly_held_out)


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


def _families(cells: Sequence[SourceImage]) -> dict[str, int]:
    """Name of a cell -> number of those that are nearly the same."""
    found = {}
    for cell in cells:
        assert cell.path is not None, "the package has files"
        with Image.open(cell.path) as image:
            found[cell.shown] = perceptual_hash(image)
    edges = [(pair.first, pair.second) for pair in alike_by_hash(found, {}).pairs]
    return {name: number for number, names in enumerate(components(found, edges)) for name in names}


def _apart(
    cells: Sequence[SourceImage], first: int, families: Mapping[str, int]
) -> tuple[list[SourceImage], list[SourceImage]]:
    """The first so many cells and the others, in their order; a family that does not fit into the first is left whole.

    Cells without a twin fill up what families leave.
    """
    members: dict[int, list[SourceImage]] = {}
    for cell in cells:
        members.setdefault(families[cell.shown], []).append(cell)
    chosen: set[str] = set()
    for family in members.values():
        if len(chosen) + len(family) <= first:
            chosen.update(cell.shown for cell in family)
    return [c for c in cells if c.shown in chosen], [c for c in cells if c.shown not in chosen]


def _shuffled(cells: list[SourceImage], rng: np.random.Generator) -> list[SourceImage]:
    return [cells[i] for i in rng.permutation(len(cells))]
