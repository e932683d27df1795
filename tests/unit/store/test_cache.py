"""Copies on the node's disk: whole, shared, bounded."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.store.cache import ObjectCache


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(cache: ObjectCache, data: bytes, *, used: float | None = None) -> Path:
    place = cache.by_digest(digest_of(data), ".bin")
    cache.keep(place, data)
    if used is not None:
        os.utime(place, (used, used))
    return place


def test_a_copy_is_read_back_unless_it_is_damaged(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 10_000)
    place = put(cache, b"pixels")
    assert cache.read(place, digest_of(b"pixels")) == b"pixels"
    place.write_bytes(b"pixelZ")
    assert cache.read(place, digest_of(b"pixels")) is None
    assert not place.exists()


def test_what_was_unused_for_longest_goes_first_and_the_last_minutes_stays(tmp_path: Path) -> None:
    now = [1_000_000.0]
    cache = ObjectCache(tmp_path, 1000, clock=lambda: now[0])
    old = [put(cache, b"%d" % number * 300, used=now[0] - 1000 + number) for number in range(3)]
    assert cache.has(old[0])  # and so it is the youngest
    put(cache, b"x" * 300, used=now[0])
    new = put(cache, b"y" * 300)
    assert [path.exists() for path in (*old, new)] == [True, False, False, True]
    assert cache.used_bytes() <= 1000
    for number in range(10):
        os.utime(put(cache, b"z%d" % number * 150), (now[0], now[0]))
    assert cache.used_bytes() > 1000, "what was asked for in this minute can be opened"
    now[0] += 61
    put(cache, b"last" * 10)
    assert cache.used_bytes() <= 1000


def test_an_object_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    assert not put(ObjectCache(tmp_path, 10), b"larger than ten").exists()


def test_one_brings_what_many_want(tmp_path: Path) -> None:
    brought = []
    begin = threading.Barrier(8)

    def want(_: int) -> bytes:
        cache = ObjectCache(tmp_path, 10**6)  # each as a process of its own would have it
        begin.wait()

        def fetch(descriptor: int) -> None:
            brought.append(os.write(descriptor, b"tensors"))

        return cache.fill(cache.by_etag("s3://a", "model", "1", ".bin"), fetch).read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(want, range(8))) == [b"tensors"] * 8
    assert brought == [7]


def test_what_could_not_be_brought_leaves_nothing(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, 10**6)
    place = cache.by_etag("s3://a", "model", "1", ".bin")

    def half(descriptor: int) -> None:
        os.write(descriptor, b"half")
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable, match="gone"):
        cache.fill(place, half)
    assert not cache.has(place)
    assert cache.used_bytes() == 0


def test_a_full_disk_costs_the_copy_and_not_the_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    cache = ObjectCache(tmp_path, 10**6)
    monkeypatch.setattr("autovision.store.cache.os.fsync", full)
    assert not put(cache, b"a").exists() and not put(cache, b"b").exists()
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    with pytest.raises(StoreUnavailable, match="No space left on device; free some space"):
        cache.fill(cache.by_digest("ab" * 32), lambda descriptor: None)


def test_the_limit_is_taken_from_the_environment_or_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AUTOVISION_STORE_CACHE", "20GB")
    cache = ObjectCache.of_node()
    assert (cache.folder, cache.limit_bytes) == (tmp_path / "autovision" / "store", 20 * 10**9)
    monkeypatch.delenv("AUTOVISION_STORE_CACHE")
    assert ObjectCache.of_node().limit_bytes > 0
    monkeypatch.setenv("AUTOVISION_STORE_CACHE", "much")
    with pytest.raises(InvalidInput, match="AUTOVISION_STORE_CACHE is 'much'"):
        ObjectCache.of_node()


def test_without_a_home_a_folder_that_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it first could have put a model of his own there."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = ObjectCache.of_node().folder
    assert made.parent == tmp_path and ObjectCache.of_node().folder == made
    made.chmod(0o777)
    with pytest.raises(StoreUnavailable, match="or may write to it; remove it, or set XDG_CACHE_HOME"):
        ObjectCache.of_node()
    made.rmdir()
    (tmp_path / "theirs").mkdir()
    made.symlink_to(tmp_path / "theirs")
    with pytest.raises(StoreUnavailable, match="somebody else made it"):
        ObjectCache.of_node()
