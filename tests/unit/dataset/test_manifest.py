"""Rows come back as they were, or not at all."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.dataset import manifest
from autovision.dataset.manifest import Row
from autovision.errors import CorruptObject
from autovision.records.datasets import DatasetVersion, Split
from autovision.store.memory import MemoryStore
from autovision.store.protocol import KeyNotFound

text = st.text(st.characters(codec="utf-8"), max_size=8)


def rows_labelled(label: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Row]]:
    return st.lists(
        st.builds(
            Row,
            image=st.integers(0, 10**6).map(lambda n: f"{n:064x}"),
            source=text,
            label=label,
            split=st.sampled_from(Split),
            confidence=st.floats(0, 1),
            group=st.none() | text,
            width=st.integers(1, 10**5),
            height=st.integers(1, 10**5),
            metadata=st.dictionaries(text, text, max_size=3),
        ),
        max_size=8,
        unique_by=lambda row: row.image,
    )


rows_of_any_kind = rows_labelled(text) | rows_labelled(st.lists(text, unique=True, max_size=3).map(tuple))
ROW = Row("ab" * 32, "a.png", "cat", Split.TRAIN, 0.5, "g", 3, 4, {"site": "Köln"})


def version_of(store: MemoryStore, rows: list[Row], **changes: Any) -> DatasetVersion:
    key, digest = manifest.write(store, "pets", rows)
    fields = {
        "name": "pets", "version": 1, "digest": digest, "manifest_key": key, "classes": (),
        "positive_class": None, "counts": {},
        "n": len(rows), "seed": 0, "parent": None, "problems": (), "problem_counts": {},
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return DatasetVersion(**{**fields, **changes})


@settings(max_examples=60, deadline=None)
@given(rows_of_any_kind, st.randoms(use_true_random=False))
def test_rows_come_back_whatever_their_order(rows: list[Row], shuffle: random.Random) -> None:
    store = MemoryStore()
    version = version_of(store, rows)
    assert manifest.read(store, version) == sorted(rows, key=lambda row: row.image)
    shuffled = list(rows)
    shuffle.shuffle(shuffled)
    assert manifest.write(store, "pets", shuffled) == (version.manifest_key, version.digest)
    assert len(list(store.list())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"image": "cd" * 32},
        {"label": "dog"},
        {"label": ("cat",)},
        {"label": ()},
        {"split": Split.TEST},
        {"confidence": 0.25},
        {"group": None},
        {"metadata": {"site": "Bonn"}},
        {"metadata": {}},
    ],
)
def test_the_digest_speaks_of_everything_that_training_may_see(change: dict[str, Any]) -> None:
    assert manifest.digest([ROW]) != manifest.digest([replace(ROW, **change)])
    assert manifest.digest([ROW]) == manifest.digest([replace(ROW, source="b.png")])


def test_the_digest_of_one_label_an_image_stays_what_it_was() -> None:
    assert manifest.digest([ROW]) == "65c5e448ecc953ce134e506cdbbdec602000a53f6a77e813b3b64d0a4b9655ab"


def test_a_damaged_table_is_noticed(store: MemoryStore) -> None:
    version = version_of(store, [ROW])
    other = version_of(store, [replace(ROW, label="dog")])
    with pytest.raises(CorruptObject, match=r"have the digest \w{12} instead of \w{12}"):
        manifest.read(store, version.with_(digest=other.digest))
    blob = store.get(version.manifest_key)
    store.put_if(version.manifest_key, blob.data[:-20], blob.etag)
    with pytest.raises(CorruptObject, match=r"cannot be read: .*import the data set again"):
        manifest.read(store, version)
    assert manifest.write(store, "pets", [ROW]) == (version.manifest_key, version.digest)  # writes it anew
    assert manifest.read(store, version) == [ROW]
    store.delete(version.manifest_key)
    with pytest.raises(KeyNotFound):
        manifest.read(store, version)


def test_another_table_is_noticed(store: MemoryStore) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    version = version_of(store, [ROW])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": ["x"], "surprise": [1]}), buffer)
    store.put_if(version.manifest_key, buffer.getvalue(), store.get(version.manifest_key).etag)
    with pytest.raises(CorruptObject, match="cannot be read"):
        manifest.read(store, version)


def test_one_source_path_after_another(store: MemoryStore) -> None:
    """Equal content from another folder is the same table; the first one stays."""
    first = version_of(store, [ROW])
    assert (
        manifest.write(store, "pets", [replace(ROW, source="a much longer path.png")])[0]
        == first.manifest_key
    )
    assert manifest.read(store, first) == [ROW]
