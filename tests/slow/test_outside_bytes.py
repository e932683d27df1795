"""Every parser of bytes from outside, given what it should be given with a few bytes changed: it reads, or refuses.

Nothing else is raised, whatever the bytes. Forms and bodies of requests, weights and images have tests of their own
(`tests/unit`), the API service has `test_service_fuzz.py`. Run with -s it prints how many inputs each was given.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from autovision.cli import files, label_files
from autovision.dataset import sources
from autovision.errors import AutoVisionError
from autovision.registry import policy_files
from autovision.search.estimates import prices
from autovision.service import events, paging
from autovision.space import Space
from autovision.store.open import open_store
from autovision.store.s3 import S3Location

EXAMPLES = 1500


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def parse(folder: Path, data: bytes) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return parse


def of_text(parse: Callable[[str], object]) -> Callable[[Path, bytes], object]:
    return lambda folder, data: parse(data.decode("utf-8", "surrogateescape"))


def labels(file: Path) -> object:
    return label_files.read(file, "ann", 1.0)


def space(folder: Path, data: bytes) -> object:
    with contextlib.suppress(ValueError, RecursionError):  # whoever reads JSON says what is none
        return Space.from_json(json.loads(data))


TABLE = b'path,label,split,confidence,group,camera\r\na/1.png,cat,train,0.5,g,x\r\n~/b.png,"d,og",,1,,\r\n'
LABELS = b"request_id,label,annotator,confidence\n20260301T120000-1a,cat,ann,0.9\nr-2,dog,,\n"
POLICY = b"deployments:\n  pets:\n    retraining:\n      min_labels: 100\n      schedule: '0 3 * * *'\n"
SPACE = b'{"format": 1, "name": "S", "parameters": {"lr": {"kind": "float", "low": 0.1, "high": 1.0, "log": true}}}'
PRICES = b'currency = "EUR"\ncpu = 0.04\n[gpus]\nA100 = 3.0\n'
COSTS = b'{"cat": {"dog": 5}, "dog": {"cat": 1.5}}'
URI = b"s3://bucket/a/prefix?region=eu-central-1&endpoint=http://127.0.0.1:9000&sse=aws:kms&kms-key=alias/x"

PARSERS: dict[str, tuple[Callable[[Path, bytes], object], tuple[bytes, ...]]] = {
    "images in CSV": (from_file("t.csv", sources.read), (TABLE, b"path,labels\n1.png,a|b\n")),
    "images in Parquet": (
        from_file("t.parquet", sources.read),
        (parquet(path=["1.png"], label=["a"], n=[3]), parquet(path=["1.png"], labels=[["a", "b"]])),
    ),
    "labels in CSV": (from_file("l.csv", labels), (LABELS,)),
    "labels in Parquet": (from_file("l.parquet", labels), (parquet(request_id=["r"], label=["a"]),)),
    "policies in YAML": (from_file("p.yaml", policy_files.read), (POLICY,)),
    "policies in TOML": (from_file("p.toml", policy_files.read), (b"[deployments.pets]\nshare = 0.5\n",)),
    "policies in JSON": (from_file("p.json", policy_files.read), (b'{"deployments": {"pets": {}}}',)),
    "a space": (space, (SPACE,)),
    "prices in TOML": (from_file("p.toml", prices.load), (PRICES,)),
    "prices in JSON": (from_file("p.json", prices.load), (b'{"currency": "EUR", "cpu": 0.04}',)),
    "costs": (from_file("c.json", files.read_costs), (COSTS,)),
    "a place on S3": (of_text(S3Location.parse), (URI,)),
    "a cursor": (of_text(paging.decoded), (paging.encoded("20260301T120000-pets").encode(),)),
}


def changed(sample: bytes) -> st.SearchStrategy[bytes]:
    """A sample with some of its bytes replaced, left out, put in twice or cut off; or anything at all."""
    place = st.integers(0, len(sample))
    dull = st.sampled_from(
        [b"\0", b'"', b"\n", b",", b"[", b"{", b"~", b"*a", b"\xff", b"9" * 400, b"[" * 3000]
    )
    change = st.tuples(place, st.integers(0, 8), st.one_of(dull, st.binary(max_size=8)))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = sample
        for at, length, instead in changes:
            data = data[:at] + instead + data[at + length :]
        return data

    some = st.lists(change, min_size=1, max_size=4).map(apply)
    return st.one_of(some, some, place.map(lambda end: sample[:end]), st.binary(max_size=60))


@pytest.fixture(scope="module")
def told() -> Iterator[Counter[tuple[str, str]]]:
    counts: Counter[tuple[str, str]] = Counter()
    yield counts
    print()
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:20} {outcome:10} {count}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_are_read_or_refused(name: str, tmp_path: Path, told: Counter[tuple[str, str]]) -> None:
    parse, samples = PARSERS[name]
    for sample in samples:
        with contextlib.suppress(KeyError):
            parse(tmp_path, sample)

    @seed(1)
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(data=st.one_of(*map(changed, samples)))
    def try_one(data: bytes) -> None:
        try:
            parse(tmp_path, data)
        except AutoVisionError as error:
            str(error).encode()  # it can be shown
            told[name, "refused"] += 1
        else:
            told[name, "read"] += 1

    try_one()
    assert told[name, "refused"] > EXAMPLES / 50


def test_an_event_that_nobody_told_is_none() -> None:
    @seed(1)
    @settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.text(max_size=40))
    def try_one(said: str) -> None:
        found = events._ID.fullmatch(said)
        assert found is None or int(found[1]) < 10**9

    try_one()


@pytest.mark.parametrize(
    "uri", ["s3://[", "s3://bucket?endpoint=http://[", "file://[x/y", "s3://b?endpoint=http://x:y"]
)
def test_addresses_that_are_none(uri: str) -> None:
    with pytest.raises(AutoVisionError):
        open_store(uri)
