"""Rows in the store: whole or not at all, and never mixed up."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autovision.features.shards import FeatureTable, ShardGone, pack
from autovision.features.spec import FeatureSpec
from autovision.records.models import Preprocessing
from autovision.store import LocalStore, MemoryStore, keys
from autovision.store.protocol import Store

PREPROCESSING = Preprocessing(
    height=64, width=64, crop_pct=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
)
SPEC = FeatureSpec(
    backbone="b",
    weights_digest="w",
    preprocessing=PREPROCESSING,
    view="identity",
    output="pooled",
    precision="f32",
)


def read(store: Store, table: FeatureTable, images: list[str]) -> np.ndarray:
    """The images' rows, one by one."""
    shards, shard, row = table.rows(store, images)
    return np.stack([shards[at][number] for at, number in zip(shard, row, strict=True)])


def rows(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
def test_rows_come_back_in_the_order_asked_for(shape: tuple[int, ...]) -> None:
    store, table, values = MemoryStore(), FeatureTable(SPEC), rows(5, *shape)
    store.put_immutable(*pack(SPEC, ["a", "b"], values[:2]))
    store.put_immutable(*pack(SPEC, ["c", "d", "e"], values[2:]))
    table.refresh(store)
    found = read(store, table, ["d", "a", "d", "b"])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, values[[3, 0, 3, 1]].astype(np.float16))
    assert table.missing(["e", "x", "a", "y", "x"]) == ["x", "y"]


def test_values_beyond_half_precision_are_clipped_not_infinite() -> None:
    store, table = MemoryStore(), FeatureTable(SPEC)
    store.put_immutable(*pack(SPEC, ["a"], np.array([[1e9, -1e9, 1.0]], np.float32)))
    table.refresh(store)
    assert read(store, table, ["a"]).tolist() == [[65504.0, -65504.0, 1.0]]


def test_writing_the_same_rows_again_changes_nothing_and_other_specs_see_none() -> None:
    store, values = MemoryStore(), rows(2, 4)
    store.put_immutable(*pack(SPEC, ["a", "b"], values))
    before = list(store.list())
    store.put_immutable(*pack(SPEC, ["a", "b"], values))
    assert list(store.list()) == before
    other = FeatureTable(SPEC.with_(precision="bf16"))
    other.refresh(store)
    assert other.missing(["a", "b"]) == ["a", "b"]


def test_rows_that_were_added_since_are_seen_after_a_refresh() -> None:
    store, table, values = MemoryStore(), FeatureTable(SPEC), rows(2, 4)
    store.put_immutable(*pack(SPEC, ["a"], values[:1]))
    table.refresh(store)
    store.put_immutable(*pack(SPEC, ["b"], values[1:]))
    assert table.missing(["a", "b"]) == ["b"]
    table.refresh(store)
    assert table.missing(["a", "b"]) == []


def damage(store: LocalStore, key: str, how: str) -> None:
    path = store.local_path(key)
    data = path.read_bytes()
    middle = len(data) // 2
    match how:
        case "truncated":
            path.write_bytes(data[:middle])
        case "empty":
            path.write_bytes(b"")
        case "a bit turned":
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])


@pytest.mark.parametrize("how", ["truncated", "empty", "a bit turned"])
def test_a_damaged_shard_is_removed_before_any_of_it_is_read(tmp_path: Path, how: str) -> None:
    store = LocalStore(tmp_path)
    store.put_immutable(*pack(SPEC, ["a"], rows(1, 4000)))
    store.put_immutable(*pack(SPEC, ["b"], rows(1, 4000)))
    (key, _) = store.list(keys.features(SPEC.digest))
    damage(store, key, how)
    table = FeatureTable(SPEC)
    table.refresh(store)
    if table.missing(["a", "b"]) == []:  # only its content is wrong, which is found when it is read
        with pytest.raises(ShardGone):
            table.rows(store, ["a", "b"])
    assert table.damaged == [key]
    assert not store.exists(key)
    (lost,) = table.missing(["a", "b"])
    store.put_immutable(*pack(SPEC, [lost], rows(1, 4000)))
    table.refresh(store)
    np.testing.assert_array_equal(read(store, table, [lost]), rows(1, 4000).astype(np.float16))


def test_a_shard_that_was_removed_since_is_missing(tmp_path: Path) -> None:
    store, table, values = LocalStore(tmp_path), FeatureTable(SPEC), rows(2, 40)
    store.put_immutable(*pack(SPEC, ["a"], values[:1]))
    store.put_immutable(*pack(SPEC, ["b"], values[1:]))
    table.refresh(store)
    shards, shard, row = table.rows(store, ["a", "b"])
    for key in store.list(keys.features(SPEC.digest)):
        store.delete(key)
    with pytest.raises(ShardGone):
        table.rows(store, ["a"])
    assert table.missing(["a"]) == ["a"]
    table.refresh(store)
    assert table.missing(["a", "b"]) == ["a", "b"]
    # What was mapped before stays readable.
    kept = np.stack([shards[at][number] for at, number in zip(shard, row, strict=True)])
    np.testing.assert_array_equal(kept, values.astype(np.float16))


def test_pixels_are_kept_as_they_are() -> None:
    store, table = MemoryStore(), FeatureTable(SPEC)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    store.put_immutable(*pack(SPEC, ["a", "b"], pixels))
    table.refresh(store)
    found = read(store, table, ["b", "a"])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels[::-1])


WRITER = """
import itertools, sys
from pathlib import Path
import numpy as np
from autovision.features.shards import pack
from autovision.features.spec import FeatureSpec
from autovision.store import LocalStore

spec = FeatureSpec.model_validate_json(sys.argv[2])
store, start = LocalStore(Path(sys.argv[1])), int(sys.argv[3])
for shard in itertools.count(start, 8):
    numbers = range(shard, shard + 8)
    values = np.stack([np.full(60_000, number % 1024, np.float32) for number in numbers])
    store.put_immutable(*pack(spec, [str(number) for number in numbers], values))
    if shard == start:
        print("first", flush=True)
"""


def test_a_killed_writer_leaves_whole_shards_only(tmp_path: Path) -> None:
    """Kill -9 in a loop that writes a megabyte at a time: every row that can be seen is right and complete."""
    draw = random.Random(0)
    for attempt in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), SPEC.to_json().decode(), str(8000 * attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"first\n"
            time.sleep(draw.uniform(0.0, 0.3))
            writer.kill()
    store, table = LocalStore(tmp_path), FeatureTable(SPEC)
    table.refresh(store)
    stored = [name for name in map(str, range(32_000)) if not table.missing([name])]
    assert len(stored) >= 4 * 8
    assert len(stored) % 8 == 0
    for name in stored:
        assert (read(store, table, [name]) == int(name) % 1024).all()
