"""Whole imports of real files into a store, good and bad."""

from __future__ import annotations

import random
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from autovision import image
from autovision.dataset import catalog, manifest
from autovision.dataset.importer import SourceImage, extend, import_dataset, import_images
from autovision.errors import InvalidInput, StoreUnavailable
from autovision.records.datasets import DatasetVersion, Split
from autovision.store import keys
from autovision.store.local import LocalStore
from autovision.store.memory import MemoryStore

MakeImage = Callable[..., Path]


def problems_of(version: DatasetVersion) -> set[tuple[str, str]]:
    return {(problem.kind, problem.path) for problem in version.problems}


def stored_images(store: MemoryStore) -> set[str]:
    return {key.rsplit("/", 1)[1] for key in store.list("images/")}


def sources_of(folder: Path) -> list[SourceImage]:
    return [SourceImage(path.parent.name, path) for path in sorted(folder.glob("*/*.png"))]


def huge_png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


# ------------------------------------------------------------------------------------------------- plain


def test_a_folder_becomes_version_1(store: MemoryStore, folder: Path) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    seen: list[tuple[int, int]] = []
    version = import_dataset(
        store,
        folder,
        "pets",
        seed=3,
        progress=lambda done, total: seen.append((done, total)),
        clock=lambda: at,
    )
    assert (version.id, version.classes, version.positive_class, version.n) == (
        "pets@1",
        ("cat", "dog"),
        "dog",
        32,
    )
    assert (version.seed, version.parent, version.created_at) == (3, None, at)
    assert version.counts == {
        "train": {"cat": 12, "dog": 7},
        "validation": {"cat": 3, "dog": 2},
        "test": {"cat": 5, "dog": 3},
    }
    assert version.problems == () and version.problem_counts == {}
    assert seen == [(n, 32) for n in range(1, 33)]
    rows = manifest.read(store, version)
    assert {row.image for row in rows} == stored_images(store)
    for row in rows:
        data = store.get(keys.image(row.image)).data
        assert sha256(data).hexdigest() == row.image and data == (folder / row.source).read_bytes()
        assert (row.width, row.height, row.label) == (12, 10, row.source.split("/")[0])


def test_the_same_again_is_the_same_version(store: MemoryStore, folder: Path) -> None:
    first = import_dataset(store, folder, "pets")
    assert import_dataset(store, folder, "pets") == first
    assert catalog.versions(store, "pets") == [first]
    other_seed = import_dataset(store, folder, "pets", seed=1)
    assert other_seed.version == 2 and other_seed.digest != first.digest
    back = import_dataset(store, folder, "pets")
    assert (back.version, back.digest, back.manifest_key) == (3, first.digest, first.manifest_key)


def test_the_same_content_from_elsewhere_is_the_same_version(
    store: MemoryStore, folder: Path, tmp_path: Path
) -> None:
    first = import_dataset(store, folder, "pets")
    table = tmp_path / "table.csv"
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in folder.glob("*/*.png")]
    table.write_text("\n".join(["path,label", *lines]))
    assert import_dataset(store, table, "pets") == first


def test_order_of_input_does_not_matter(store: MemoryStore, folder: Path) -> None:
    sources = sources_of(folder)
    first = import_images(store, "pets", sources, seed=0)
    random.Random(0).shuffle(sources)
    assert import_images(store, "pets", sources, seed=0) == first


def test_a_table_with_splits_groups_confidence_and_metadata(
    store: MemoryStore, make_image: MakeImage, tmp_path: Path
) -> None:
    lines = ["path,label,split,confidence,group,site"]
    for n in range(24):
        make_image(tmp_path / "größe x" / f"{n}.png", n)
        lines.append(
            f"größe x/{n}.png,{'ab'[n % 2]},{'test' if n < 4 else ''},0.{n + 10},patient {n // 4},s{n % 3}"
        )
    (tmp_path / "table.csv").write_text("\n".join(lines))
    version = import_dataset(store, tmp_path / "table.csv", "x", stratify_by="site")
    rows = {row.source: row for row in manifest.read(store, version)}
    assert len(rows) == 24
    assert rows["größe x/5.png"].confidence == 0.15 and rows["größe x/5.png"].metadata == {"site": "s2"}
    by_group = {
        group: {row.split for row in rows.values() if row.group == group}
        for group in ("patient 0", "patient 4")
    }
    assert by_group["patient 0"] == {Split.TEST} and len(by_group["patient 4"]) == 1


def test_stratified_by_a_column_as_well(store: MemoryStore, folder: Path) -> None:
    sources = [
        SourceImage(source.label, source.path, metadata={"site": str(n % 2)})
        for n, source in enumerate(sources_of(folder))
    ]
    version = import_images(store, "pets", sources, seed=0, stratify_by="site")
    counts = Counter((row.label, row.metadata["site"], row.split) for row in manifest.read(store, version))
    assert [counts["cat", site, Split.TRAIN] for site in "01"] == [6, 6]
    assert [counts["dog", site, Split.TRAIN] for site in "01"] in ([4, 3], [3, 4])
    with pytest.raises(
        InvalidInput, match=r"no image has the metadata 'sight'.* there is 'site'; did you mean 'site'"
    ):
        import_images(store, "pets", sources, seed=0, stratify_by="sight")


def test_the_positive_class(store: MemoryStore, folder: Path, make_image: MakeImage) -> None:
    rarer = import_dataset(store, folder, "pets")
    assert rarer.positive_class == "dog"
    chosen = import_dataset(store, folder, "pets", positive_class="cat")
    assert (chosen.version, chosen.positive_class, chosen.digest) == (2, "cat", rarer.digest)
    with pytest.raises(InvalidInput, match=r"'cta' is none of the classes 'cat', 'dog'; did you mean 'cat'"):
        import_dataset(store, folder, "pets", positive_class="cta")
    make_image(folder / "emu" / "1.png", 999)
    assert import_dataset(store, folder, "pets").positive_class is None
    with pytest.raises(InvalidInput, match="for two classes, and there are 3"):
        import_dataset(store, folder, "pets", positive_class="cat")


# --------------------------------------------------------------------------------------------- bad images


def test_bad_files_are_reported_and_the_rest_goes_on(store: MemoryStore, folder: Path) -> None:
    good = (folder / "cat" / "00.png").read_bytes()
    (folder / "cat" / "truncated.png").write_bytes(good[: len(good) // 2])
    (folder / "cat" / "text.png").write_text("I am no image")
    (folder / "dog" / "empty.jpg").touch()
    (folder / "dog" / "huge.png").write_bytes(huge_png())
    (folder / "dog" / "corrupt.png").write_bytes(good[:40] + bytes(20) + good[60:])
    (folder / "dog" / "notes.txt").write_text("hello")
    (folder / "emu").mkdir()
    version = import_dataset(store, folder, "pets")
    assert version.n == 32 and version.classes == ("cat", "dog")
    assert problems_of(version) == {
        ("unreadable", "cat/truncated.png"),
        ("unreadable", "cat/text.png"),
        ("unreadable", "dog/empty.jpg"),
        ("too_large", "dog/huge.png"),
        ("unreadable", "dog/corrupt.png"),
        ("ignored", "dog/notes.txt"),
        ("empty_class", "emu"),
    }
    assert version.problem_counts == {"unreadable": 4, "too_large": 1, "ignored": 1, "empty_class": 1}
    assert len(stored_images(store)) == 32
    messages = {problem.path: problem.message for problem in version.problems}
    assert "30,000 by 30,000" in messages["dog/huge.png"] and "is empty" in messages["dog/empty.jpg"]


def test_unusual_images_are_taken(store: MemoryStore, tmp_path: Path) -> None:
    for n, label in enumerate(("ä b", "c")):
        base = np.random.default_rng(n).integers(0, 256, (20, 30, 3), np.uint8)
        folder = tmp_path / "odd" / label
        folder.mkdir(parents=True)
        picture = Image.fromarray(base)
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(folder / "rotated é.jpg", exif=exif)
        picture.convert("CMYK").save(folder / "cmyk.jpg")
        picture.quantize(8).save(folder / "palette.png", transparency=2)
        picture.convert("RGBA").save(folder / "alpha.webp")
        Image.fromarray(base[..., 0].astype(np.uint16) * 257).save(folder / "deep 16.png")
        grey = picture.convert("L")
        (ImageOps.invert(grey) if n else grey).convert("1").save(folder / "bits.bmp")
    version = import_dataset(store, tmp_path / "odd", "odd")
    assert version.n == 12 and set(version.problem_counts) <= {"near_duplicate"}
    sizes = {row.source: (row.width, row.height) for row in manifest.read(store, version)}
    assert sizes["ä b/rotated é.jpg"] == (20, 30)  # upright
    assert sizes["c/deep 16.png"] == (30, 20)


def test_missing_files_of_a_table(store: MemoryStore, folder: Path, make_image: MakeImage) -> None:
    names = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in folder.glob("*/*.png")]
    (folder / "table.csv").write_text(
        "\n".join(["path,label", *names, "cat/lost.png,cat", "cat,dog", "a\0b.png,cat"])
    )
    version = import_dataset(store, folder / "table.csv", "pets")
    assert version.n == 32
    assert {(problem.kind, problem.path, problem.message.split(":")[0]) for problem in version.problems} == {
        ("missing", "cat/lost.png", "the file does not exist"),
        ("missing", "cat", "the file is a folder or device"),
        ("missing", "a\0b.png", "the file does not exist"),
    }


def test_duplicates_are_kept_once_and_conflicts_left_out(store: MemoryStore, folder: Path) -> None:
    (folder / "cat" / "copy of 03.png").write_bytes((folder / "cat" / "03.png").read_bytes())
    (folder / "cat" / "woof.png").write_bytes((folder / "dog" / "07.png").read_bytes())
    version = import_dataset(store, folder, "pets")
    assert version.n == 31
    assert version.problem_counts == {"conflicting_label": 2, "duplicate": 1}
    messages = {problem.path: problem.message for problem in version.problems}
    assert messages["cat/copy of 03.png"] == "has the same bytes as 'cat/03.png', which is kept"
    assert messages["cat/woof.png"].startswith(
        "is labelled 'cat' here, but 'dog/07.png' with the same bytes 'dog'"
    )
    assert "dog/07.png" in messages
    assert {"cat/woof.png", "dog/07.png"}.isdisjoint(row.source for row in manifest.read(store, version))


def test_the_same_file_twice_in_a_table_is_read_once(
    store: MemoryStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = sources_of(folder)
    read: list[Path] = []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or plain(self))
    version = import_images(store, "pets", [*sources, *sources], seed=0)
    assert version.n == 32 and version.problem_counts == {"duplicate": 32}
    assert len(read) == len(set(read)) == 32


@pytest.mark.parametrize("extends", [True, False])
def test_images_of_the_newest_version_are_not_decoded_again(
    store: MemoryStore, folder: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, extends: bool
) -> None:
    first = import_images(store, "pets", sources_of(folder), seed=0)
    new = SourceImage("cat", make_image(folder / "cat" / "new.png", size=(20, 14)))
    store.delete(keys.image(lost := min(stored_images(store))))
    decoded: list[bytes] = []
    plain = image.decode
    monkeypatch.setattr(image, "decode", lambda data: decoded.append(data) or plain(data))
    if extends:
        version = extend(store, first, [*sources_of(folder), new], seed=0)
    else:
        version = import_images(store, "pets", [*sources_of(folder), new], seed=0)
    assert new.path is not None and decoded == [new.path.read_bytes()]
    sizes = {(row.width, row.height) for row in manifest.read(store, version)}
    assert version.n == 33 and sizes == {(12, 10), (20, 14)}
    assert lost in stored_images(store)


def test_a_damaged_manifest_does_not_keep_a_data_set_from_being_imported_again(
    store: MemoryStore, folder: Path
) -> None:
    first = import_dataset(store, folder, "pets")
    store.put_if(first.manifest_key, b"rubbish", store.get(first.manifest_key).etag)
    assert import_dataset(store, folder, "pets") == first
    assert len(manifest.read(store, first)) == 32


def test_only_the_first_hundred_problems_are_kept_and_all_counted(store: MemoryStore, folder: Path) -> None:
    for n in range(120):
        (folder / "cat" / f"a{n}.txt").touch()
        (folder / "cat" / f"bad{n}.png").touch()
    version = import_dataset(store, folder, "pets")
    assert version.problem_counts == {"ignored": 120, "unreadable": 120}
    assert len(version.problems) == 100 and {problem.kind for problem in version.problems} == {"unreadable"}


# ---------------------------------------------------------------------------------------------- refusals


def test_fewer_than_two_classes(store: MemoryStore, make_image: MakeImage, tmp_path: Path) -> None:
    make_image(tmp_path / "one" / "cat" / "1.png")
    (tmp_path / "one" / "dog").mkdir()
    with pytest.raises(
        InvalidInput, match=r"only the class 'cat' \('dog' without images\); give images of at least"
    ):
        import_dataset(store, tmp_path / "one", "pets")
    with pytest.raises(InvalidInput, match="there is no labelled image"):
        import_images(store, "pets", [], seed=0)
    assert list(store.list()) == []


def test_a_class_without_any_usable_image(store: MemoryStore, folder: Path) -> None:
    for n in range(3):
        (folder / "emu").mkdir(exist_ok=True)
        (folder / "emu" / f"{n}.png").write_text("no image")
    with pytest.raises(
        InvalidInput, match=r"no image of the class 'emu' can be used: 3 unreadable; e\.g\. 'emu/0\.png'"
    ):
        import_dataset(store, folder, "pets")
    assert catalog.version_numbers(store, "pets") == []


def test_a_name_that_cannot_be_a_key_is_refused_before_anything_is_read(
    store: MemoryStore, folder: Path
) -> None:
    for name in ("", "my pets", "a/b", "..", "ä"):
        with pytest.raises(InvalidInput, match="data set's name"):
            import_dataset(store, folder, name)
    assert list(store.list()) == []


def test_a_store_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")

    def refuse(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autovision.store.durable.write_synced", refuse)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        import_dataset(store, folder, "pets")


# -------------------------------------------------------------------------- interruptions, several at once


def test_an_interrupted_import_keeps_what_it_stored_and_goes_on(store: MemoryStore, folder: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        import_dataset(store, folder, "pets", progress=interrupt)
    assert threading.active_count() == before
    assert catalog.version_numbers(store, "pets") == []
    kept = stored_images(store)
    assert 10 <= len(kept) <= 20

    writes: list[str] = []
    plain = store._put
    store._put = lambda key, data: writes.append(key) or plain(key, data)  # type: ignore[method-assign]
    version = import_dataset(store, folder, "pets")
    assert version.version == 1 and version.n == 32
    assert kept.isdisjoint(key.rsplit("/", 1)[1] for key in writes)


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_two_importers_at_once(kind: str, folder: Path, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else LocalStore(tmp_path / "store")
    sources = sources_of(folder)
    start = threading.Barrier(6)
    versions: list[DatasetVersion] = []

    def work(seed: int) -> None:
        start.wait()
        versions.append(import_images(store, "pets", sources, seed=seed))

    threads = [threading.Thread(target=work, args=(n % 3,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(versions) == 6
    stored = catalog.versions(store, "pets")
    assert [version.version for version in stored] == list(range(1, len(stored) + 1))
    assert {version.digest for version in versions} == {version.digest for version in stored}
    assert len({version.digest for version in stored}) == 3
    # Equal neighbours never occur: the second one gets the version of the first.
    assert all(a.digest != b.digest for a, b in pairwise(stored))
    assert all(version in stored for version in versions)


# ------------------------------------------------------------------------------------------------- extend


def test_extending_keeps_the_old_splits_and_splits_the_new_alike(
    store: MemoryStore, folder: Path, make_image: MakeImage, tmp_path: Path
) -> None:
    first = import_dataset(store, folder, "pets")
    new = [SourceImage("cat", make_image(tmp_path / "new" / f"{n}.png", 500 + n)) for n in range(20)]
    second = extend(store, first, new, seed=9)
    assert (second.id, second.parent, second.seed, second.n) == ("pets@2", 1, 9, 52)
    assert second.positive_class == first.positive_class == "dog"
    old_rows = {row.image: row for row in manifest.read(store, first)}
    rows = {row.image: row for row in manifest.read(store, second)}
    assert {image: rows[image] for image in old_rows} == old_rows
    added = Counter(row.split for image, row in rows.items() if image not in old_rows)
    assert [added[split] for split in Split] == [12, 3, 5]
    assert extend(store, first, new, seed=9) == second
    assert extend(store, second, new, seed=1) == second


def test_only_versions_of_the_same_data_set_are_extended(store: MemoryStore, folder: Path) -> None:
    first = import_dataset(store, folder, "pets")
    with pytest.raises(InvalidInput, match="pets@1 is no version of 'cats'"):
        import_images(store, "cats", sources_of(folder), seed=0, parent=first)


def test_extending_with_stored_images(
    store: MemoryStore, folder: Path, make_image: MakeImage, tmp_path: Path
) -> None:
    first = import_dataset(store, folder, "pets")
    data = make_image(tmp_path / "x.png", 700).read_bytes()
    digest = sha256(data).hexdigest()
    store.put_immutable(keys.image(digest), data)
    damaged = "ab" * 32
    store.put_immutable(keys.image(damaged), data)
    sources = [
        SourceImage("dog", digest=digest, source="capture 1", confidence=0.5),
        SourceImage("dog", digest=damaged, source="capture 2"),
        SourceImage("dog", digest="cd" * 32, source="capture 3"),
    ]
    second = extend(store, first, sources, seed=0)
    row = next(row for row in manifest.read(store, second) if row.image == digest)
    assert (row.source, row.label, row.confidence, row.width) == ("capture 1", "dog", 0.5, 12)
    assert problems_of(second) == {("unreadable", "capture 2"), ("missing", "capture 3")}


def test_extending_with_what_is_there_already(
    store: MemoryStore, folder: Path, make_image: MakeImage, tmp_path: Path
) -> None:
    first = import_dataset(store, folder, "pets")
    again = [
        SourceImage("cat", folder / "cat" / "00.png", split=Split.TEST),
        SourceImage("dog", folder / "cat" / "01.png"),
        SourceImage("emu", make_image(tmp_path / "emu.png", 800)),
    ]
    assert extend(store, first, again[:2], seed=0) == first
    second = extend(store, first, again, seed=0)
    assert second.classes == ("cat", "dog", "emu") and second.positive_class is None
    assert second.problem_counts == {"conflicting_label": 1, "duplicate": 1}
    old = {row.image: row for row in manifest.read(store, first)}
    assert old.items() <= {row.image: row for row in manifest.read(store, second)}.items()
    (tmp_path / "bad.png").touch()
    with pytest.raises(InvalidInput, match="no image of the class 'gnu' can be used"):
        extend(store, first, [SourceImage("gnu", tmp_path / "bad.png")], seed=0)


# --------------------------------------------------------------------------------------- several labels


@pytest.fixture
def scenes(tmp_path: Path, make_image: MakeImage) -> Path:
    """60 images with any of sun, tree and house."""
    lines = ["path,labels"]
    for n in range(60):
        make_image(tmp_path / f"{n}.png", 900 + n)
        names = [name for bit, name in enumerate(("sun", "tree", "house")) if n >> bit & 1]
        lines.append(f"{n}.png,{'|'.join(names)}")
    (tmp_path / "scenes.csv").write_text("\n".join(lines))
    return tmp_path / "scenes.csv"


def test_images_with_any_number_of_labels(store: MemoryStore, scenes: Path) -> None:
    version = import_dataset(store, scenes, "scenes")
    assert (version.multi_label, version.classes) == (True, ("house", "sun", "tree"))
    assert (version.positive_class, version.n) == (None, 60)
    assert list(version.images.values()) == pytest.approx([36, 9, 15], abs=1.5)
    totals = {name: sum(counts[name] for counts in version.counts.values()) for name in version.classes}
    assert totals == {"house": 28, "sun": 30, "tree": 30}
    for split, share in (("train", 0.6), ("validation", 0.15), ("test", 0.25)):
        for name, total in totals.items():
            assert version.counts[split][name] == pytest.approx(share * total, abs=1.5)
    rows = {row.source: row.labels for row in manifest.read(store, version)}
    assert rows["0.png"] == () and rows["7.png"] == ("house", "sun", "tree")
    assert import_dataset(store, scenes, "scenes") == version


def test_duplicates_and_contradictions_of_several_labels(store: MemoryStore, scenes: Path) -> None:
    for copy, of in (("same", 3), ("other", 5), ("none", 6)):
        (scenes.parent / f"{copy}.png").write_bytes((scenes.parent / f"{of}.png").read_bytes())
    with scenes.open("a") as table:
        table.write("\nsame.png,tree|sun\nother.png,sun\nnone.png,")
    version = import_dataset(store, scenes, "scenes")
    assert version.n == 58 and version.problem_counts == {"conflicting_label": 4, "duplicate": 1}
    messages = {problem.path: problem.message for problem in version.problems}
    assert messages["other.png"].startswith(
        "is labelled 'sun' here, but '5.png' with the same bytes 'house' and 'sun'; all"
    )
    assert messages["none.png"].startswith("is labelled none of the classes here, but '6.png'")


def test_a_data_set_of_several_labels_is_extended_by_its_kind(
    store: MemoryStore, scenes: Path, make_image: MakeImage, tmp_path: Path
) -> None:
    first = import_dataset(store, scenes, "scenes")
    new = [
        SourceImage(("tree", "sun"), make_image(tmp_path / "new.png", 999)),
        SourceImage((), scenes.parent / "7.png"),
    ]
    second = extend(store, first, new, seed=0)
    assert (second.multi_label, second.parent, second.n) == (True, 1, 61)
    assert second.problem_counts == {"conflicting_label": 1}
    assert extend(store, second, [], seed=1) == second
    one = SourceImage("tree", tmp_path / "new.png")
    with pytest.raises(
        InvalidInput, match="images of scenes@1 have any number of labels, the new ones do not"
    ):
        extend(store, first, [one], seed=0)
    with pytest.raises(InvalidInput, match=r"new.png' has one label and .*new.png' any number"):
        import_images(store, "scenes", [one, new[0]], seed=0)


def test_a_data_set_of_one_label_takes_no_sets(store: MemoryStore, folder: Path) -> None:
    first = import_dataset(store, folder, "pets")
    assert not first.multi_label
    with pytest.raises(InvalidInput, match="images of pets@1 have exactly one label"):
        extend(store, first, [SourceImage(("cat",), folder / "cat" / "00.png")], seed=0)


def test_classes_of_several_labels_are_checked_like_single_ones(store: MemoryStore, scenes: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"a positive class \('sun'\) is for images with one of two classes"
    ):
        import_dataset(store, scenes, "scenes", positive_class="sun")
    (scenes.parent / "bad.png").touch()
    with scenes.open("a") as table:
        table.write("\nbad.png,sun|moon")
    with pytest.raises(InvalidInput, match="no image of the class 'moon' can be used: 1 unreadable"):
        import_dataset(store, scenes, "scenes")
    scenes.write_text("path,labels\n1.png,sun\n2.png,")
    with pytest.raises(InvalidInput, match="there is only the class 'sun'"):
        import_dataset(store, scenes, "scenes")
