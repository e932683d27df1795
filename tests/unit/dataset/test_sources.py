"""Folders and tables as people really have them."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autovision.dataset import sources
from autovision.dataset.listing import SourceImage
from autovision.errors import InvalidInput
from autovision.records.datasets import Split


def kinds(listing: sources.Listing) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.path) for problem in listing.problems)


def csv(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


# ----------------------------------------------------------------------------------------------- folders


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    names = [
        "b/2.PNG",
        "b/1.jpg",
        "a/deep/er/3.webp",
        "a/x.tif",
        "a/notes.txt",
        "a/.hidden.png",
        "a/.git/4.png",
    ]
    for name in [*names, "README.md", "stray.png", ".DS_Store"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache" / "z").mkdir(parents=True)
    listing = sources.read(tmp_path)
    assert [(image.label, image.source) for image in listing.images] == [
        ("a", "a/x.tif"),
        ("a", "a/deep/er/3.webp"),
        ("b", "b/1.jpg"),
        ("b", "b/2.PNG"),
    ]
    assert listing.images[0].path == tmp_path / "a" / "x.tif"
    assert all(image.split is None and image.confidence == 1 for image in listing.images)
    ignored = [
        ".DS_Store",
        ".cache",
        "README.md",
        "a/.git/4.png",
        "a/.hidden.png",
        "a/notes.txt",
        "stray.png",
    ]
    assert kinds(listing) == [("empty_class", "empty"), *(("ignored", path) for path in ignored)]


def test_a_link_that_leads_out_of_the_folder_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    root, private = tmp_path / "root", tmp_path / "private"
    for name in ("root/a/1.png", "root/b/2.png", "private/3.png", "root-2/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (root / "a" / "out.png").symlink_to(private / "3.png")
    (root / "a" / "up.png").symlink_to("../../root-2/4.png")
    (root / "a" / "in.png").symlink_to("../b/2.png")
    (root / "c").symlink_to(private)
    (root / "d").symlink_to("b")
    listing = sources.read(root)
    assert [image.source for image in listing.images] == ["a/1.png", "a/in.png", "b/2.png", "d/2.png"]
    assert kinds(listing) == [("outside", "a/out.png"), ("outside", "a/up.png"), ("outside", "c")]
    assert all("--follow-links" in problem.message for problem in listing.problems)
    listing = sources.read(root, follow_links=True)
    assert {"a/out.png", "a/up.png", "c/3.png"} < {image.source for image in listing.images}
    assert listing.problems == ()
    # Whoever is given a link means what it leads to.
    (tmp_path / "link").symlink_to(root)
    assert len(sources.read(tmp_path / "link").images) == 4


def test_a_class_below_a_split_that_is_a_link_out_is_left_out_and_a_folder_of_such_links_says_so(
    tmp_path: Path,
) -> None:
    for name in ("root/train/a/1.png", "root/test/a/2.png", "private/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "root/train/b").symlink_to(tmp_path / "private")
    listing = sources.read(tmp_path / "root")
    assert [(image.source, image.split) for image in listing.images] == [
        ("test/a/2.png", Split.TEST),
        ("train/a/1.png", Split.TRAIN),
    ]
    assert kinds(listing) == [("outside", "train/b")]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(tmp_path / "private")
    with pytest.raises(InvalidInput, match="1 links that lead out of it, which --follow-links takes"):
        sources.read(tmp_path / "links")


def test_names_with_spaces_and_letters_beyond_ascii(tmp_path: Path) -> None:
    for name in (
        "Weiße Flügel/Küken im Nest.jpg",
        "猫/ねこ 1.png",
        unicodedata.normalize("NFD", "é") + "/1.png",
    ):
        path = tmp_path / name
        path.parent.mkdir()
        path.touch()
    listing = sources.read(tmp_path)
    assert {image.label for image in listing.images} == {"Weiße Flügel", "猫", "é"}
    assert all(image.path is not None and image.path.exists() for image in listing.images)


def test_folders_named_after_splits_give_the_splits(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "test/b/4.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
    listing = sources.read(tmp_path)
    assert [(image.label, image.split, image.source) for image in listing.images] == [
        ("b", Split.TEST, "test/b/4.png"),
        ("a", Split.TRAIN, "train/a/1.png"),
        ("b", Split.TRAIN, "train/b/2.png"),
        ("a", Split.VALIDATION, "val/a/3.png"),
    ]


def test_classes_that_are_called_like_splits(tmp_path: Path) -> None:
    for name in ("train/1.png", "test/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert {image.label for image in sources.read(tmp_path).images} == {"train", "test"}


def test_paths_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    with pytest.raises(InvalidInput, match=r"no file or folder '.*pest'; did you mean 'pets'"):
        sources.read(tmp_path / "pest")
    with pytest.raises(InvalidInput, match="no file or folder"):
        sources.read(tmp_path / "nowhere" / "pets")
    with pytest.raises(InvalidInput, match="it holds no folder and no image; make one folder for each class"):
        sources.read(tmp_path / "pets")
    (tmp_path / "pets" / "1.png").touch()
    with pytest.raises(InvalidInput, match="it holds 1 images, but no folder"):
        sources.read(tmp_path / "pets")
    with pytest.raises(InvalidInput, match=r"none of the 1 folders in .* holds an image"):
        sources.read(_with_empty_class(tmp_path / "other"))
    (tmp_path / "data.zip").touch()
    with pytest.raises(
        InvalidInput, match=r"neither a folder of class folders nor a table that ends in \.csv"
    ):
        sources.read(tmp_path / "data.zip")
    with pytest.raises(InvalidInput, match="NUL"):
        sources.read(Path("a\0b"))


def _with_empty_class(path: Path) -> Path:
    (path / "cat").mkdir(parents=True)
    return path


# ------------------------------------------------------------------------------------------------ tables


def test_a_csv_with_everything(tmp_path: Path) -> None:
    table = csv(
        tmp_path,
        "path, label ,split,confidence,group,site,camera\n"
        'images/a 1.png,cat,train,0.5,g1,"Köln, Süd",\n'
        "/data/b.png,dog,Val,,,Rome,x\n"
        "c.png,cat,,1,,,\n"
        "\n"
        "d.png,dog\n",
    )
    listing = sources.read(table)
    a, b, c, d = listing.images
    assert a.path == tmp_path / "images" / "a 1.png" and a.source == "images/a 1.png"
    assert (a.label, a.split, a.confidence, a.group) == ("cat", Split.TRAIN, 0.5, "g1")
    assert a.metadata == {"site": "Köln, Süd"}
    assert (
        b.path == Path("/data/b.png")
        and b.split is Split.VALIDATION
        and b.confidence == 1
        and b.group is None
    )
    assert b.metadata == {"site": "Rome", "camera": "x"}
    assert (c.split, c.metadata) == (None, {})
    assert (d.label, d.metadata) == ("dog", {})
    assert listing.problems == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_a_byte_order_mark_and_windows_line_ends(tmp_path: Path, encoding: str) -> None:
    listing = sources.read(csv(tmp_path, "path,label\r\nÄ.png,Größe\r\n", encoding))
    assert [(image.source, image.label) for image in listing.images] == [("Ä.png", "Größe")]


def test_rows_that_cannot_be_used_are_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    listing = sources.read(csv(tmp_path, "path,label,site\na.png,,x\n,cat,x\nb,c.png,cat,x\nd.png,cat,x\n"))
    assert [image.source for image in listing.images] == ["d.png"]
    assert kinds(listing) == [
        ("malformed", "table.csv, line 4"),
        ("unlabelled", "a.png"),
        ("unlabelled", "table.csv, line 3"),
    ]


def test_a_parquet_table(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns: dict[str, Any] = {
        "path": ["a.png", "b.png"],
        "label": [1, 0],
        "split": pa.array(["test", None]).dictionary_encode(),
        "confidence": [0.25, None],
        "batch": [7, None],
    }
    pq.write_table(pa.table(columns), path)
    a, b = sources.read(path).images
    assert (a.label, a.split, a.confidence, a.metadata) == ("1", Split.TEST, 0.25, {"batch": "7"})
    assert (b.label, b.split, b.confidence, b.metadata) == ("0", None, 1.0, {})
    assert a.path == tmp_path / "a.png"


def test_a_csv_with_any_number_of_labels(tmp_path: Path) -> None:
    listing = sources.read(csv(tmp_path, "path,labels\na.png,dog | cat|dog\nb.png,\nc.png, |cat|\n,cat\n"))
    assert [image.label for image in listing.images] == [("cat", "dog"), (), ("cat",)]
    assert all(image.metadata == {} for image in listing.images)
    assert kinds(listing) == [("unlabelled", "table.csv, line 5")]


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
def test_a_parquet_table_with_any_number_of_labels(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "table.parquet"
    given = pa.array([["dog", "a|b"], [], None, ["cat", None, ""]], kind)
    pq.write_table(pa.table({"path": ["a", "b", "c", "d"], "labels": given}), path)
    listing = sources.read(path)
    assert [image.label for image in listing.images] == [("a|b", "dog"), (), ("cat",)]
    assert kinds(listing) == [("unlabelled", "c")]  # a null says nothing, an empty list says none
    pq.write_table(pa.table({"path": ["a", "b"], "labels": ["dog|cat", ""]}), path)
    assert [image.label for image in sources.read(path).images] == [("cat", "dog"), ()]
    pq.write_table(pa.table({"path": ["a"], "labels": [[1]]}), path)
    with pytest.raises(InvalidInput, match=r"column 'labels' .* holds list<.*int64> and not text"):
        sources.read(path)


def test_a_column_that_is_missing_is_named_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"no column 'label'; its columns are 'path', 'lable'; did you mean 'lable'"
    ):
        sources.read(csv(tmp_path, "path,lable\na.png,cat\n"))
    with pytest.raises(InvalidInput, match=r"no column 'path'; its columns are 'path;label'"):
        sources.read(csv(tmp_path, "path;label\na.png;cat\n"))
    with pytest.raises(InvalidInput, match=r"no column 'path'; its columns are none"):
        sources.read(csv(tmp_path, ""))
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"path": ["a"], "class": ["b"]}), path)
    with pytest.raises(InvalidInput, match=r"no column 'label'; its columns are 'path', 'class'"):
        sources.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "names no image with a label"),
        ("path,label,label\na,b,c\n", "the column 'label' twice"),
        ("path,label,labels\na,b,c\n", "the columns 'label' and 'labels'; keep the first if"),
        ("path,label,split\na,b,trian\n", r"table.csv, line 2: unknown split 'trian'; did you mean 'train'"),
        ("path,label,confidence\na,b,1.5\n", r"line 2: the confidence '1.5' is not a number from 0 to 1"),
        ("path,label,confidence\na,b,-0.1\n", "the confidence '-0.1'"),
        ("path,label,confidence\na,b,nan\n", "the confidence 'nan'"),
        ("path,label,confidence\na,b,high\n", "the confidence 'high'"),
        ('path,label,confidence\na,b,"0,9"\n', "the confidence '0,9'"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        sources.read(csv(tmp_path, text))


def test_tables_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"is not UTF-8 \(byte 11 is 0xc4\)"):
        sources.read(csv(tmp_path, "path,label\nÄ.png,cat\n", "latin-1"))
    (tmp_path / "big.csv").write_text("path,label\n" + "x" * 200_000 + ",cat\n")
    with pytest.raises(InvalidInput, match="line 2, is not valid CSV: field larger"):
        sources.read(tmp_path / "big.csv")
    (tmp_path / "fake.parquet").write_text("no table")
    with pytest.raises(InvalidInput, match="is not a Parquet table that can be read"):
        sources.read(tmp_path / "fake.parquet")
    pq.write_table(
        pa.table({"path": ["a"], "label": ["b"], "pixels": [b"\x00"]}), tmp_path / "binary.parquet"
    )
    with pytest.raises(InvalidInput, match=r"column 'pixels' .* holds binary"):
        sources.read(tmp_path / "binary.parquet")


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # tests may run as root, whom no folder refuses
    with pytest.raises(InvalidInput, match=r"cannot read .*: Permission denied"):
        sources.read(tmp_path)


# ------------------------------------------------------------------------------------------ single sources


def test_a_source_is_a_file_or_a_stored_image_with_a_label() -> None:
    assert SourceImage("cat", Path("a.png")).shown == "a.png"
    assert SourceImage("cat", digest="00ff").shown == "00ff"
    assert SourceImage("cat", digest="00ff", source="capture 7").shown == "capture 7"
    with pytest.raises(InvalidInput, match="either a path or the digest"):
        SourceImage("cat")
    with pytest.raises(InvalidInput, match="either a path or the digest"):
        SourceImage("cat", Path("a.png"), digest="00ff")
    with pytest.raises(InvalidInput, match=r"'a.png' has an empty label"):
        SourceImage("", Path("a.png"))
    for confidence in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="confidence"):
            SourceImage("cat", Path("a.png"), confidence=confidence)
