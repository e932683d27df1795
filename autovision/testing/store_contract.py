"""The contract of every store, as tests. To run it against a back end of your own:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make_store(self, tmp_path):
            return lambda: MyStore(...)      # a fresh, empty store at each call

For readable failures, conftest.py calls
`pytest.register_assert_rewrite("autovision.testing.store_contract")` first.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from autovision.errors import CorruptObject, InvalidInput
from autovision.store import (
    AlreadyExists,
    ETagMismatch,
    KeyNotFound,
    Store,
    open_store,
    put_many_immutable,
)
from autovision.testing.contender import add, win

THREADS = 8
PROCESSES = 4

ODD_KEYS = [
    "a",
    "a/b",
    "a/b/c",
    "a-b",
    "a.b",
    "a.b/c",
    "a.blob",
    "a.blob.blob",
    ".hidden",
    ".tmp/x",
    ".locks/00",
    "..a/b..",
    "...",
    "~/x",
    "with space/and\ttab\nnewline",
    "ünïcödé/图像/🔬.png",
    "e\u0301 is not \u00e9",
    "\u00e9 is not e\u0301",
    "percent%2E/100%",
    "back\\slash/'quote\"",
    "*?[x]/$HOME/;&|",
    "CON/nul.txt",
    "x" * 200,
    "/".join(["d"] * 500),
    "é" * 40 + "/" + "図" * 40,
]
"""keys that lie beside each other, escape, or look like something else: all legal, all different"""

ILLEGAL_KEYS = [
    "",
    "/",
    "/absolute",
    "trailing/",
    "double//slash",
    ".",
    "..",
    "../outside",
    "a/../b",
    "a/./b",
    "a/..",
    "nul\0",
    "surrogate\ud800",
    "x" * 300,
    "a/" * 512 + "a",
]


class StoreContract:
    """Inherit, and define the fixture `make_store`."""

    shared_by_processes: ClassVar[bool] = True
    """whether `open_store(store.uri)` in another process opens the same store"""
    rounds: ClassVar[int] = 25
    """races between threads, and between processes; fewer for a store whose requests take long"""

    @pytest.fixture
    def make_store(self) -> Callable[[], Store]:
        raise NotImplementedError(
            "define a fixture `make_store` that returns a function giving a new empty store"
        )

    @pytest.fixture
    def store(self, make_store: Callable[[], Store]) -> Store:
        return make_store()

    # ----------------------------------------------------------------------------------- one at a time

    def test_satisfies_the_protocol(self, store: Store) -> None:
        assert isinstance(store, Store)

    def test_a_new_object_is_read_back(self, store: Store) -> None:
        etag = store.put_new("a/b.json", b"one")
        assert store.get("a/b.json") == (b"one", etag)
        assert store.exists("a/b.json")
        assert list(store.list()) == ["a/b.json"]

    def test_a_new_object_never_replaces(self, store: Store) -> None:
        etag = store.put_new("a", b"one")
        with pytest.raises(AlreadyExists, match="'a'"):
            store.put_new("a", b"two")
        assert store.get("a") == (b"one", etag)

    def test_what_is_missing_is_an_error_that_names_it(self, store: Store) -> None:
        for act in (store.get, store.local_path, lambda key: store.put_if(key, b"", "0")):
            with pytest.raises(KeyNotFound, match="'no/such'"):
                act("no/such")
        assert not store.exists("no/such")
        assert list(store.list()) == []

    def test_a_folder_of_keys_is_not_an_object(self, store: Store) -> None:
        store.put_new("a/b/c", b"")
        for key in ("a", "a/b", "a/b/c/d"):
            assert not store.exists(key)
            with pytest.raises(KeyNotFound):
                store.get(key)

    def test_replacing_takes_the_latest_etag(self, store: Store) -> None:
        first = store.put_new("a", b"one")
        second = store.put_if("a", b"two", first)
        assert second != first
        with pytest.raises(ETagMismatch, match="'a'"):
            store.put_if("a", b"three", first)
        assert store.get("a") == (b"two", second)

    def test_the_etag_tells_contents_apart(self, store: Store) -> None:
        contents = [b"", b"\0", b"a", b"b", b"ab"]
        assert len({store.put_new(f"k/{i}", data) for i, data in enumerate(contents)}) == len(contents)

    def test_an_immutable_object_is_written_once(self, store: Store) -> None:
        key = f"images/{hashlib.sha256(b'pixels').hexdigest()}"
        store.put_immutable(key, b"pixels")
        etag = store.get(key).etag
        store.put_immutable(key, b"pixels")
        assert store.get(key) == (b"pixels", etag)

    @pytest.mark.parametrize("damaged", [b"", b"pix", b"pixelZ", b"pixels and more"])
    def test_an_immutable_object_that_is_damaged_is_written_again(self, store: Store, damaged: bytes) -> None:
        key = f"images/{hashlib.sha256(b'pixels').hexdigest()}"
        store.put_new(key, damaged)
        store.put_immutable(key, b"pixels")
        assert store.get(key).data == b"pixels"

    def test_another_object_under_an_immutable_key_is_an_error(self, store: Store) -> None:
        store.put_immutable("made/of", b"something")
        with pytest.raises(CorruptObject, match="'made/of'"):
            store.put_immutable("made/of", b"something else")
        assert store.get("made/of").data == b"something"

    def test_many_immutable_objects(self, store: Store) -> None:
        objects = [(f"many/{i:03d}", b"%d" % i) for i in range(100)]
        assert put_many_immutable(store, iter(objects)) == 100
        assert [(key, store.get(key).data) for key in store.list("many/")] == objects

    def test_the_first_error_ends_many_and_keeps_what_was_written(self, store: Store) -> None:
        taken = iter([("many/0", b""), ("../no", b""), *((f"many/{i}", b"") for i in range(1, 1000))])
        with pytest.raises(InvalidInput):
            put_many_immutable(store, taken, workers=2)
        assert store.exists("many/0")
        assert next(taken, None) is not None, "it went on after the error"

    def test_deleting(self, store: Store) -> None:
        store.put_new("a/b", b"one")
        store.put_new("a/c", b"one")
        store.delete("a/b")
        store.delete("a/b")
        assert list(store.list()) == ["a/c"]
        assert not store.exists("a/b")
        with pytest.raises(KeyNotFound):
            store.get("a/b")
        store.put_new("a/b", b"two")
        assert store.get("a/b").data == b"two"

    def test_a_large_object(self, store: Store) -> None:
        data = hashlib.sha256(b"seed").digest() * (20 * 2**20 // 32)
        store.put_immutable("large", data)
        assert store.get("large").data == data
        with store.local_path("large").open("rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(data).digest()

    def test_a_local_path_keeps_what_it_held(self, store: Store) -> None:
        etag = store.put_new("a/model.safetensors", b"one")
        path = store.local_path("a/model.safetensors")
        assert path.suffix == ".safetensors"
        with path.open("rb") as file:
            store.put_if("a/model.safetensors", b"two!", etag)
            assert file.read() == b"one"
        assert store.local_path("a/model.safetensors").read_bytes() == b"two!"

    def test_several_are_read_in_order_without_those_that_are_missing(self, store: Store) -> None:
        numbers = range(50)
        put_many_immutable(store, ((f"a/{number}", b"%d" % number) for number in numbers))
        wanted = [key for number in numbers for key in (f"a/{number}", f"missing/{number}")]
        found = [(key, blob.data) for key, blob in store.get_many(wanted)]
        assert found == [(f"a/{number}", b"%d" % number) for number in numbers]
        assert list(store.get_many([])) == []

    def test_entries_tell_sizes_and_ages(self, store: Store) -> None:
        begun = datetime.now(UTC)
        store.put_new("a", b"")
        etag = store.put_new("b/c", b"123")
        found = {entry.key: entry for entry in store.entries()}
        assert {key: entry.size_bytes for key, entry in found.items()} == {"a": 0, "b/c": 3}
        for entry in found.values():
            assert timedelta(seconds=-2) < entry.modified_at - begun < timedelta(seconds=60)
        assert list(store.entries("b/")) == [found["b/c"]]
        store.touch("b/c")
        (touched,) = store.entries("b/")
        assert touched.modified_at >= found["b/c"].modified_at
        assert store.get("b/c").data == b"123"
        assert store.put_if("b/c", b"4", etag)
        with pytest.raises(KeyNotFound, match="'b/d'"):
            store.touch("b/d")

    def test_only_what_has_not_changed_since_it_was_listed_is_removed(self, store: Store) -> None:
        etag = store.put_new("a", b"one")
        (before,) = store.entries()
        store.put_if("a", b"another", etag)
        assert not store.delete_unchanged(before)
        assert store.get("a").data == b"another"
        (after,) = store.entries()
        assert store.delete_unchanged(after)
        assert not store.exists("a")
        assert store.delete_unchanged(after)

    # --------------------------------------------------------------------------------- keys and listing

    def test_odd_keys_are_different_objects(self, store: Store) -> None:
        for number, key in enumerate(ODD_KEYS):
            store.put_new(key, b"%d" % number)
        for number, key in enumerate(ODD_KEYS):
            assert store.get(key).data == b"%d" % number
            assert store.local_path(key).read_bytes() == b"%d" % number
        assert list(store.list()) == sorted(ODD_KEYS, key=str.encode)

    @pytest.mark.parametrize("key", ILLEGAL_KEYS)
    def test_illegal_keys_are_refused_everywhere(self, store: Store, key: str) -> None:
        for act in (
            store.get,
            store.exists,
            store.delete,
            store.local_path,
            lambda key: store.put_new(key, b""),
            lambda key: store.put_if(key, b"", ""),
            lambda key: store.put_immutable(key, b""),
        ):
            with pytest.raises(InvalidInput, match="not valid"):
                act(key)
        assert list(store.list()) == []

    def test_keys_are_listed_in_the_order_of_their_bytes(self, store: Store) -> None:
        keys = ["a/b", "a-b", "a.b", "a", "a0", "a/b-c/d", "a/b/c", "B", "\uffff", "\U0001f52c", "é", "z"]
        for key in keys:
            store.put_new(key, b"")
        assert list(store.list()) == sorted(keys, key=str.encode)

    @pytest.mark.parametrize(
        "prefix",
        ["", "a", "a/", "a/b", "a/b/", "a/b/c", "a-", "a.", ".", "..", "b", "x/y", "a/b/c/d", "é", "A"],
    )
    def test_a_prefix_may_end_anywhere(self, store: Store, prefix: str) -> None:
        keys = ["a", "a/b", "a/b/c", "a/bc/d", "a-b/c", "a.b/c", "ab", "b/a/b", ".x", "..y/z", "é/é", "é2"]
        for key in keys:
            store.put_new(key, b"")
        assert list(store.list(prefix)) == sorted(key for key in keys if key.startswith(prefix))

    def test_folders_are_what_stands_before_the_next_slash(self, store: Store) -> None:
        for key in ["a", "a/b", "a/b/c", "a/bc/d", "a/b.x/d", "a-b/c", "a.b/c/d", "é/x", "z"]:
            store.put_new(key, b"")
        assert list(store.folders("")) == ["a", "a-b", "a.b", "é"]
        assert list(store.folders("a/")) == ["b", "b.x", "bc"]
        assert list(store.folders("a/b/")) == []
        assert list(store.folders("nothing/here/")) == []
        for prefix in ("a", "../", "a//"):
            with pytest.raises(InvalidInput):
                list(store.folders(prefix))

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", "./", "nul\0/", "surrogate\ud800"])
    def test_a_prefix_that_no_key_can_have_is_refused(self, store: Store, prefix: str) -> None:
        with pytest.raises(InvalidInput, match="no key begins"):
            store.list(prefix)

    def test_listing_goes_on_while_others_write(self, store: Store) -> None:
        for number in range(50):
            store.put_new(f"a/{number:02d}/x", b"")
        listing = store.list("a/")
        assert next(listing) == "a/00/x"
        store.delete("a/30/x")
        store.put_new("b", b"")
        rest = list(listing)
        assert [key for key in rest if key != "a/30/x"] == [f"a/{n:02d}/x" for n in range(1, 50) if n != 30]

    # ----------------------------------------------------------------------------------------- together

    def test_one_thread_wins_each_race(self, store: Store) -> None:
        names = [f"thread-{number}" for number in range(THREADS)]
        start = threading.Barrier(THREADS)

        def compete(name: str) -> list[int]:
            start.wait()
            return win(store, name, self.rounds)

        with ThreadPoolExecutor(THREADS) as pool:
            won = list(pool.map(compete, names))
        _check_winners(store, dict(zip(names, won, strict=True)), self.rounds)

    def test_no_thread_loses_an_update(self, store: Store) -> None:
        store.put_new("counter", b"0")
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(add, store, "counter", self.rounds) for _ in range(THREADS)]:
                done.result()
        assert store.get("counter").data == b"%d" % (self.rounds * THREADS)

    def test_readers_see_whole_objects_only(self, store: Store) -> None:
        sizes = [1, 100_000]
        etag = store.put_new("a", b"0" * sizes[0])
        stop = threading.Event()

        def look() -> int:
            looks = 0
            while not stop.is_set() or looks == 0:
                data = store.get("a").data
                assert len(data) in sizes and len(set(data)) == 1, "a mixture of two objects"
                looks += 1
            return looks

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(look) for _ in range(4)]
            try:
                for number in range(60):
                    etag = store.put_if("a", b"%d" % (number % 10) * sizes[number % 2], etag)
            finally:
                stop.set()
            assert all(reader.result() > 0 for reader in readers)

    def test_the_uri_opens_the_same_store(self, store: Store) -> None:
        store.put_new("a", b"one")
        again = open_store(store.uri)
        assert again.uri == store.uri
        assert again.get("a").data == b"one"
        with pytest.raises(AlreadyExists):
            again.put_new("a", b"two")

    def test_processes_win_and_lose_like_threads(self, store: Store) -> None:
        if not self.shared_by_processes:
            pytest.skip("this store belongs to one process")
        store.put_new("counter", b"0")
        rounds = self.rounds
        names = [f"process-{number}" for number in range(PROCESSES)]
        processes = [_start_contender(store.uri, name, rounds) for name in names]
        try:
            outputs = _race(processes)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
        won = {name: json.loads(output) for name, output in zip(names, outputs, strict=True)}
        _check_winners(store, won, rounds)
        assert store.get("counter").data == b"%d" % (rounds * PROCESSES)


def _start_contender(uri: str, name: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "autovision.testing.contender", uri, name, str(rounds)]
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, bufsize=1
    )


def _race(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Starts all when all are ready; what each of them printed."""
    for process in processes:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
    outputs = []
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        outputs.append(output)
    return outputs


def _check_winners(store: Store, won: dict[str, list[int]], rounds: int) -> None:
    """Each race has one winner, and the object is the winner's."""
    assert sorted(number for numbers in won.values() for number in numbers) == list(range(rounds))
    for name, numbers in won.items():
        for number in numbers:
            assert store.get(f"race/{number}").data == name.encode()
