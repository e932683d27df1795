"""Several tables of the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autovision.features.shards import FeatureTable, pack
from autovision.features.spec import FeatureSpec
from autovision.features.tables import Tables
from autovision.records.models import Preprocessing
from autovision.store import LocalStore, keys

PREPROCESSING = Preprocessing(
    height=8, width=8, crop_pct=1.0, interpolation="bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
SPECS = [FeatureSpec(preprocessing=PREPROCESSING, view=f"flip:{i}", output="pooled") for i in range(3)]


def tables_in(store: LocalStore, noted: list[int]) -> Tables:
    made = Tables(store, tuple(map(FeatureTable, SPECS)), (10, 20, 30), noted.append)
    made.refresh()
    return made


def values(view: int, names: list[str], width: int = 4) -> np.ndarray:
    return np.stack([np.full(width, 100 * view + int(name), np.float32) for name in names])


def test_what_is_lacking_and_what_it_takes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_immutable(*pack(SPECS[0], ["1", "2"], values(0, ["1", "2"])))
    store.put_immutable(*pack(SPECS[1], ["2"], values(1, ["2"])))
    tables = tables_in(store, [])
    assert tables.lacking(["3", "2", "1", "2"]) == ["3", "2", "1"]
    assert tables.total_bytes(["1", "2", "2"]) == 2 * 60
    assert tables.missing_bytes(["1", "2", "2"]) == 0 * 10 + 1 * 20 + 2 * 30
    store.put_immutable(*pack(SPECS[2], ["2"], values(2, ["2"])))
    tables.refresh()
    assert tables.lacking(["1", "2"]) == ["1"]


def test_views_are_told_apart_in_one_map(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for view, spec in enumerate(SPECS):
        for names in (["3"], ["1", "2"]) if view else (["2", "1", "3"],):
            store.put_immutable(*pack(spec, names, values(view, names)))
    rows = tables_in(store, []).map(["1", "2", "3"], slice(0, 3))
    views, images = np.array([2, 0, 1, 1]), np.array([0, 2, 1, 2])
    np.testing.assert_array_equal(rows.take((views, images))[:, 0], [201, 3, 102, 103])
    some = tables_in(store, []).map(["3"], slice(1, 2))
    np.testing.assert_array_equal(some.take((np.array([0]), np.array([0])))[:, 0], [103])


def test_damaged_shards_are_counted_once(tmp_path: Path) -> None:
    store, noted = LocalStore(tmp_path), list[int]()
    store.put_immutable(*pack(SPECS[0], ["1"], values(0, ["1"])))
    store.local_path(next(store.list(keys.FEATURES))).write_bytes(b"nothing")
    tables = tables_in(store, noted)
    tables.refresh()
    assert noted == [1]


def memory_kb(kind: str) -> int:
    """Of this process: `RssAnon` is its own, `RssFile` is what the page cache shares with all others."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:"))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells a process's own memory")
def test_reading_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    """48 MB of rows, all of them read: they are in the page cache, and of a copy there is one batch."""
    store, names = LocalStore(tmp_path), [str(i) for i in range(1200)]
    for start in range(0, 1200, 100):
        part = names[start : start + 100]
        store.put_immutable(*pack(SPECS[0], part, values(0, part, 20_000)))
    tables, everything = tables_in(store, []), np.arange(1200)
    own, shared = memory_kb("RssAnon"), memory_kb("RssFile")
    rows = tables.map(names, slice(0, 1))
    total = 0.0
    for start in range(0, 1200, 8):
        batch = everything[start : start + 8]
        total += float(rows.take((np.zeros_like(batch), batch))[:, -1].astype(np.float64).sum())
    assert total == sum(range(1200))
    assert memory_kb("RssFile") - shared > 40_000
    assert memory_kb("RssAnon") - own < 8_000
