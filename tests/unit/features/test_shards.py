"""Rows in the store: whole or not at all, and never mixed up."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autovision.errors import CorruptObject
from autovision.features.shards import FeatureTable, write_shard
from autovision.features.spec import FeatureSpec
from autovision.records import Preprocessing
from autovision.store import LocalStore, MemoryStore, keys

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


def rows(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5)])
def test_rows_come_back_in_the_order_asked_for(shape: tuple[int, ...]) -> None:
    store, table, values = MemoryStore(), FeatureTable(SPEC), rows(5, *shape)
    write_shard(store, SPEC, ["a", "b"], values[:2])
    write_shard(store, SPEC, ["c", "d", "e"], values[2:])
    table.refresh(store)
    assert table.shape == shape
    found = table.gather(["d", "a", "d", "b"])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, values[[3, 0, 3, 1]].astype(np.float16))
    assert table.missing(["e", "x", "a", "y", "x"]) == ["x", "y"]


def test_columns_are_chosen_in_their_order() -> None:
    store, table, values = MemoryStore(), FeatureTable(SPEC), rows(3, 6)
    write_shard(store, SPEC, ["a", "b", "c"], values)
    table.refresh(store)
    found = table.gather(["c", "a"], np.array([4, 0]))
    np.testing.assert_array_equal(found, values[[2, 0]][:, [4, 0]].astype(np.float16))


def test_values_beyond_half_precision_are_clipped_not_infinite() -> None:
    store, table = MemoryStore(), FeatureTable(SPEC)
    write_shard(store, SPEC, ["a"], np.array([[1e9, -1e9, 1.0]], np.float32))
    table.refresh(store)
    assert table.gather(["a"]).tolist() == [[65504.0, -65504.0, 1.0]]


def test_writing_the_same_rows_again_changes_nothing_and_other_specs_see_none() -> None:
    store, values = MemoryStore(), rows(2, 4)
    write_shard(store, SPEC, ["a", "b"], values)
    before = list(store.list())
    write_shard(store, SPEC, ["a", "b"], values)
    assert list(store.list()) == before
    other = FeatureTable(SPEC.with_(precision="bf16"))
    other.refresh(store)
    assert other.missing(["a", "b"]) == ["a", "b"]


def test_rows_that_were_added_since_are_seen_after_a_refresh() -> None:
    store, table, values = MemoryStore(), FeatureTable(SPEC), rows(2, 4)
    write_shard(store, SPEC, ["a"], values[:1])
    table.refresh(store)
    write_shard(store, SPEC, ["b"], values[1:])
    assert table.missing(["a", "b"]) == ["b"]
    table.refresh(store)
    assert table.missing(["a", "b"]) == []


def test_a_damaged_shard_is_named_with_its_remedy(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    write_shard(store, SPEC, ["a"], rows(1, 400))
    (key,) = store.list(keys.features(SPEC.digest))
    path = store.local_path(key)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorruptObject, match=rf"{key}.*delete that object"):
        FeatureTable(SPEC).refresh(store)
    store.delete(key)
    write_shard(store, SPEC, ["a"], rows(1, 400))
    table = FeatureTable(SPEC)
    table.refresh(store)
    assert table.missing(["a"]) == []


WRITER = """
import itertools, sys
from pathlib import Path
import numpy as np
from autovision.features.shards import write_shard
from autovision.features.spec import FeatureSpec
from autovision.store import LocalStore

spec = FeatureSpec.model_validate_json(sys.argv[2])
store, start = LocalStore(Path(sys.argv[1])), int(sys.argv[3])
for shard in itertools.count(start, 8):
    numbers = range(shard, shard + 8)
    values = np.stack([np.full(60_000, number % 1024, np.float32) for number in numbers])
    write_shard(store, spec, [str(number) for number in numbers], values)
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
        assert (table.gather([name]) == int(name) % 1024).all()
