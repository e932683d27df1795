"""The budget of bytes: kept, by removing what was not used for longest."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.features import budget
from autovision.features.budget import FeatureBudget, Keeper, NoRoom, parse_bytes, readable, used_bytes
from autovision.features.shards import pack
from autovision.features.spec import FeatureSpec
from autovision.records.models import Preprocessing
from autovision.store import LocalStore, keys
from autovision.store.durable import unavailable

PREPROCESSING = Preprocessing(
    height=8, width=8, crop_pct=1.0, interpolation="bicubic", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)


def shard(view: str, number: int = 0) -> tuple[str, bytes]:
    """Key and content of a shard of one row, of some 9 kB."""
    spec = FeatureSpec(preprocessing=PREPROCESSING, view=view, output="pooled")
    return pack(spec, [f"{number:064x}"], np.full((1, 4096), number, np.float32))


def digest(view: str) -> str:
    return FeatureSpec(preprocessing=PREPROCESSING, view=view, output="pooled").digest


SIZE = len(shard("flip:1")[1])


def put(store: LocalStore, view: str, number: int = 0, *, age_s: float = 0.0) -> str:
    """A shard that is there, and was used so many seconds ago."""
    key, data = shard(view, number)
    store.put_immutable(key, data)
    used = time.time() - age_s
    os.utime(store.local_path(key), (used, used))
    return key


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_keys_tell_sizes(store: LocalStore) -> None:
    key = put(store, "flip:1")
    assert keys.feature_shard_bytes(key) == store.local_path(key).stat().st_size == SIZE
    put(store, "crop:1")
    assert used_bytes(store) == 2 * SIZE
    assert keys.feature_shard_bytes("features/x/something.arrow") == 0


def test_what_was_not_used_for_longest_goes_first(store: LocalStore) -> None:
    old = [put(store, "crop:1", number, age_s=900) for number in range(3)]
    older = [put(store, "crop:2", number, age_s=5000) for number in range(2)]
    limit = FeatureBudget(store, 5 * SIZE)
    for number in range(3):
        limit.put(*shard("flip:1", number), own={digest("flip:1")})
        assert used_bytes(store) <= 5 * SIZE
    assert not any(map(store.exists, older))
    assert sum(map(store.exists, old)) == 2, "no more is removed than has to be"


def test_one_shard_that_is_used_keeps_its_whole_spec(store: LocalStore) -> None:
    mixed = [put(store, "crop:1", 0, age_s=9000), put(store, "crop:1", 1, age_s=1)]
    idle = put(store, "crop:2", age_s=300)
    FeatureBudget(store, 3 * SIZE).put(*shard("flip:1"), own={digest("flip:1")})
    assert all(map(store.exists, mixed))
    assert not store.exists(idle)


def test_what_others_use_and_what_is_its_own_stays(store: LocalStore) -> None:
    theirs = put(store, "crop:1", age_s=1)
    own = put(store, "flip:1", age_s=9000)
    with pytest.raises(NoRoom, match="do not fit beside what is in use by others"):
        FeatureBudget(store, 2 * SIZE).put(*shard("flip:1", 1), own={digest("flip:1")})
    assert store.exists(theirs)
    assert store.exists(own)
    assert used_bytes(store) == 2 * SIZE


def test_touching_is_using(store: LocalStore) -> None:
    limit, idle = FeatureBudget(store, 2 * SIZE), put(store, "crop:1", age_s=9000)
    idler = put(store, "crop:2", age_s=300)
    limit.touch(["features/gone/gone.arrow", idle])
    limit.put(*shard("flip:1"), own=())
    assert store.exists(idle)
    assert not store.exists(idler)


def test_a_keeper_touches_now_and_then(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(budget.time, "monotonic", lambda: clock[0])
    one, other = put(store, "crop:1", age_s=9000), put(store, "crop:2", age_s=9000)
    keep = Keeper(FeatureBudget(store, SIZE), [[one], [other]])

    def ages() -> list[float]:
        return [time.time() - store.local_path(key).stat().st_mtime for key in (one, other)]

    keep()
    assert min(ages()) > 8000
    clock[0] += 60.0
    keep()
    assert max(ages()) < 60


def test_what_is_larger_than_the_budget_is_not_begun(store: LocalStore) -> None:
    limit = FeatureBudget(store, 4 * SIZE)
    limit.admit(4 * SIZE, 4 * SIZE, own=())
    with pytest.raises(NoRoom, match=r"^need 48\.\d KB and the budget is 38\.\d KB$"):
        limit.admit(5 * SIZE, 1, own=())


def test_what_does_not_fit_beside_what_others_use_is_not_begun(store: LocalStore) -> None:
    limit = FeatureBudget(store, 4 * SIZE)
    put(store, "crop:1", age_s=9000)
    put(store, "crop:2", age_s=1)
    put(store, "flip:1", age_s=1)
    limit.admit(3 * SIZE, 2 * SIZE, own={digest("flip:1")})  # what is idle can go
    with pytest.raises(NoRoom, match=r"of the budget of .* are in use by others"):
        limit.admit(4 * SIZE, 3 * SIZE, own={digest("flip:1")})


class FullDisk(LocalStore):
    """A folder on a disk without room for features."""

    def put_immutable(self, key: str, data: bytes) -> None:
        raise unavailable("write", self.root, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from OSError(
            errno.ENOSPC, os.strerror(errno.ENOSPC)
        )


def test_a_full_disk_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match=r"do not fit on the disk \(No space left on device\)"):
        FeatureBudget(FullDisk(tmp_path), 10**9).put(*shard("flip:1"), own=())


def test_other_faults_of_a_disk_stay_errors(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "features").write_text("a file where a folder has to be")
    with pytest.raises(StoreUnavailable):
        store.put_immutable(*shard("flip:1"))
    with pytest.raises(StoreUnavailable), budget.disk_full_is_no_room():
        store.put_immutable(*shard("flip:1"))


def test_features_leave_some_of_the_disk_free(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = put(store, "crop:1", age_s=9000)
    limit = FeatureBudget(store, 10**12)
    monkeypatch.setattr(budget, "_SPARE_SHARE", 1.0)
    monkeypatch.setattr(budget, "_SPARE_BYTES", 10**18)
    with pytest.raises(NoRoom, match="of the disk are free"):
        limit.put(*shard("flip:1"), own=())
    assert not store.exists(idle), "what is idle was removed, which was not enough"


def test_without_a_budget_it_is_a_share_of_the_disk(store: LocalStore) -> None:
    put(store, "crop:1")
    assert FeatureBudget.of(store, None).limit_bytes > 0
    assert FeatureBudget.of(store, 17).limit_bytes == 17


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("512 MiB", 512 << 20), ("1000", 1000), (" 1.5 kb ", 1500), ("2TiB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["20 giga", "-1", "GB", "1,5 GB", "20 %"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"AUTOVISION_FEATURE_BUDGET is .* such as 20GB"):
        parse_bytes(text)


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOVISION_FEATURE_BUDGET", raising=False)
    assert budget.configured_bytes() is None
    monkeypatch.setenv("AUTOVISION_FEATURE_BUDGET", "256MB")
    assert budget.configured_bytes() == 256_000_000


def test_sizes_are_written_for_people() -> None:
    assert [readable(size) for size in (12, 1500, 987_000_000, 10**9)] == [
        "12 bytes",
        "1.5 KB",
        "987 MB",
        "1 GB",
    ]
