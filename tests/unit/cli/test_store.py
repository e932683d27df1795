from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from autovision.store import keys, open_store


def put_orphan(folder: Path, *, age_s: float = 0.0) -> str:
    store = open_store(folder)
    key = keys.image(hashlib.sha256(b"left over").hexdigest())
    store.put_new(key, b"left over")
    used = time.time() - age_s
    os.utime(store.local_path(key), (used, used))
    return key


def test_a_store_is_checked_and_tidied_up(cli: Any, photos: Path, tmp_path: Path) -> None:
    assert cli("dataset", "import", photos, "--name", "pets").code == 0
    sound = cli("store", "check", "--json")
    assert sound.code == 0 and sound.answer["sound"] and sound.answer["orphans"] == []
    orphan = put_orphan(tmp_path / "store", age_s=30 * 3600)
    shown = cli("store", "check")
    assert shown.code == 0 and "store gc" in shown.out
    looked = cli("store", "gc")
    assert looked.code == 0 and "nothing was changed" in looked.out and orphan[:40] in looked.out
    young = cli("store", "gc", "--older-than-hours", "100", "--delete", "--json")
    assert young.answer["objects"] == [] and young.answer["young"] == [orphan]
    removed = cli("store", "gc", "--delete", "--json")
    assert removed.answer["objects"] == [orphan] and removed.answer["deleted"]
    assert cli("store", "check", "--json").answer["orphans"] == []
    assert "while nothing else writes" in cli("store", "gc", "--delete", "--older-than-hours", "1").err


def test_what_is_damaged_or_missing_is_exit_code_5(cli: Any, photos: Path, tmp_path: Path) -> None:
    cli("dataset", "import", photos, "--name", "pets")
    store = open_store(tmp_path / "store")
    damaged, missing, *_ = store.list("images/")
    store.local_path(damaged).write_bytes(b"damaged")
    store.delete(missing)
    ran = cli("store", "check", "--json")
    assert ran.code == 5
    assert [each["key"] for each in ran.answer["damaged"]] == [damaged]
    assert [each["key"] for each in ran.answer["dangling"]] == [missing]
    told = cli("store", "check")
    assert told.code == 5 and "Restore these objects" in told.out
    copied = cli("store", "copy", tmp_path / "store", tmp_path / "copy", "--json", at=False)
    assert copied.code == 5 and copied.answer["objects"]["damaged"] == 1


def test_a_store_is_copied_with_its_progress_shown(cli: Any, photos: Path, tmp_path: Path) -> None:
    cli("dataset", "import", photos, "--name", "pets")
    source, target = tmp_path / "store", tmp_path / "copy"
    ran = cli("store", "copy", source, target, at=False)
    assert ran.code == 0 and "copied" in ran.out and "100 % of" in ran.err
    assert cli("store", "copy", source, target, "--json", at=False).answer["objects"]["copied"] == 0
    assert cli("dataset", "list", "--store", target, "--json", at=False).answer
    other = open_store(target)
    key = keys.dataset_version("pets", 1)
    other.put_if(key, b"{}", other.get(key).etag)
    assert cli("store", "copy", source, target, at=False).code == 4
    assert cli("store", "copy", source, target, "--overwrite", at=False).code == 0
    refused = cli("store", "copy", source, source, at=False)
    assert refused.code == 2 and "onto itself" in refused.err


def test_an_s3_store_that_cannot_be_used_is_exit_code_5(cli: Any, s3_server_url: str) -> None:
    ran = cli("store", "check", "--store", f"s3://no-such-bucket?endpoint={s3_server_url}", at=False)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith("error: ") and "no bucket 'no-such-bucket'" in ran.err
