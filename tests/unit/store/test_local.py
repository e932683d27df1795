"""What only a folder can get wrong: the disk, locks, leftovers, foreign files."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.store import KeyNotFound, LocalStore, durable
from autovision.testing import FakeClock


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match=r"file: File exists; a file is where a folder has to be"):
        LocalStore(tmp_path / "file")


@pytest.mark.parametrize("root", ["/dev/null/x", "/dev/null/x/y"])
def test_a_path_below_a_file(root: str) -> None:
    with pytest.raises(
        StoreUnavailable, match=rf"{root}: Not a directory; a part of the path is a file.*--store"
    ):
        LocalStore(Path(root))


def test_a_place_where_no_folder_can_be_made() -> None:
    with pytest.raises(StoreUnavailable, match=r"/proc/store: .*--store"):
        LocalStore(Path("/proc/store"))


def test_a_path_that_no_file_system_has() -> None:
    with pytest.raises(InvalidInput, match="NUL"):
        LocalStore(Path("a\0b"))
    with pytest.raises(StoreUnavailable, match="choose a shorter path"):
        LocalStore(Path("/tmp", "x" * 300))


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreUnavailable, match=r"loop"):
        LocalStore(tmp_path / "loop")


def test_a_folder_that_is_gone_is_not_an_empty_store(local: LocalStore) -> None:
    local.put_new("a", b"")
    local.root.rename(local.root.with_name("unmounted"))
    for act in (
        lambda: local.get("a"),
        lambda: local.exists("a"),
        lambda: list(local.list()),
        lambda: local.put_new("b", b""),
        lambda: local.put_immutable("b", b""),
        lambda: local.delete("a"),
    ):
        with pytest.raises(StoreUnavailable, match="store"):
            act()
    assert not local.root.exists()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "mount"), (errno.EACCES, "right"), (errno.EIO, "disk")],
)
def test_a_write_that_fails_leaves_nothing(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    etag = local.put_new("a", b"old")

    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for act in (
            lambda: local.put_new("b", b"new"),
            lambda: local.put_if("a", b"new", etag),
            lambda: local.put_immutable("c", b"new"),
        ):
            with pytest.raises(StoreUnavailable, match=rf"write .*{os.strerror(code)}; .*{remedy}"):
                act()
    assert [(key, local.get(key).data) for key in local.list()] == [("a", b"old")]
    assert list((local.root / ".tmp").iterdir()) == []


def test_a_write_that_the_kernel_cuts_in_the_middle(local: LocalStore) -> None:
    """`RLIMIT_FSIZE` makes a write stop half-way, as a disk that becomes full does."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from autovision.store import LocalStore\n"
        "from autovision.errors import StoreUnavailable\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "store = LocalStore(Path(sys.argv[1]))\n"
        "try: store.put_new('big', bytes(50_000))\n"
        "except StoreUnavailable as error: print(error)\n"
        "store.put_new('small', b'x')\n"
    )
    result = _python(code, str(local.root))
    assert "File too large" in result and "big" in result
    assert list(local.list()) == ["small"]
    assert list((local.root / ".tmp").iterdir()) == []


def test_an_old_leftover_is_removed_and_a_young_one_is_not(local: LocalStore) -> None:
    temp = local.root / ".tmp"
    temp.mkdir()
    clock = FakeClock()
    for name, age_s in (("old", 25 * 3600), ("young", 23 * 3600)):
        (temp / name).write_bytes(b"half")
        at = clock().timestamp() - age_s
        os.utime(temp / name, (at, at))
    LocalStore(local.root, clock=clock)
    assert [path.name for path in temp.iterdir()] == ["young"]
    assert list(local.list()) == []


def test_foreign_files_are_not_objects(local: LocalStore) -> None:
    local.put_new("images/a", b"")
    local.put_new("images/b.json", b"")
    for name in ("images/no-suffix", "images/.DS_Store", "images/b%4a.json", "README", ".git/config"):
        (local.root / name).parent.mkdir(exist_ok=True)
        (local.root / name).write_bytes(b"foreign")
    (local.root / "v1.2").mkdir()
    (local.root / "v1.2" / "x.json").write_bytes(b"foreign")
    (local.root / os.fsdecode(b"latin-\xff.json")).write_bytes(b"foreign")
    assert list(local.list()) == ["images/a", "images/b.json"]
    with pytest.raises(KeyNotFound):
        local.get("README")


def test_objects_stay_below_the_root(local: LocalStore, tmp_path: Path) -> None:
    for key in ("~/a", "$HOME/a", "%2E%2E/a", "..%2Fa", "...", "..a/b"):
        local.put_new(key, b"")
        assert local.local_path(key).resolve().is_relative_to(local.root)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_new_objects_are_readable_as_the_umask_says(local: LocalStore) -> None:
    old = os.umask(0o027)
    try:
        local.put_new("a", b"")
    finally:
        os.umask(old)
    assert local.local_path("a").stat().st_mode & 0o777 == 0o640


def test_without_hard_links_a_new_object_still_never_replaces(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    local.put_new("a", b"one")
    temp = local.root / ".tmp" / "x"
    temp.write_bytes(b"two")
    with pytest.raises(FileExistsError):
        durable.create_exclusively(temp, local.local_path("a"))
    assert local.get("a").data == b"one"


def test_a_lock_that_is_never_given_back_is_an_error(tmp_path: Path) -> None:
    with (
        durable.locked(tmp_path / "lock"),
        pytest.raises(StoreUnavailable, match=r"lock.*held by another process for 0\.05 s"),
        durable.locked(tmp_path / "lock", timeout_s=0.05),
    ):
        pass
    with durable.locked(tmp_path / "lock", timeout_s=0.05):
        pass


def test_a_killed_process_loses_its_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from autovision.store import durable\n"
        "with durable.locked(Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        fd = os.open(tmp_path / "lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        holder.kill()
        holder.wait()
    with durable.locked(tmp_path / "lock", timeout_s=5):
        pass


def test_importing_the_store_is_light() -> None:
    code = (
        "import sys, autovision.store, autovision.store.captures, autovision.store.labels\n"
        "print([name for name in ('pyarrow', 'numpy', 'torch', 'ray') if name in sys.modules])"
    )
    assert _python(code) == "[]"


_ROOT = Path(__file__).parents[3]


def _python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=_ROOT)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
