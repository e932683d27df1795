"""Labels by the command line: files, annotators, reviews."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autovision.dataset.importer import import_dataset
from autovision.records.deployments import Capture, Label
from autovision.registry import deployments
from autovision.store import captures, labels, open_store


def test_a_parquet_file_of_labels_that_come_before_their_requests(
    cli: Any, world: Any, tmp_path: Path, at: Callable[[float], datetime]
) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    store = open_store(world.folder)
    table = pa.table(
        {
            "request_id": ["r1", "r2", "r3", "r/4"],
            "label": ["cat", "dog", None, "cat"],
            "annotator": ["ann", None, "ann", "ann"],
            "confidence": [0.5, None, 1.0, 1.0],
        }
    )
    pq.write_table(table, tmp_path / "labels.parquet")
    line = ("feedback", "door", "--file", "labels.parquet", "--annotator", "night", "--json")
    ran = cli(*line)
    assert ran.code == 1
    assert (ran.answer["stored"], [row["line"] for row in ran.answer["bad"]]) == (2, [3, 4])
    assert ran.answer["waiting"] == [{"line": 1, "request_id": "r1"}, {"line": 2, "request_id": "r2"}]
    capture = Capture(
        request_id="r1",
        deployment="door",
        model=world.model,
        received_at=at(0),
        latency_ms=1,
        image="0" * 64,
        label="cat",
        probabilities={"cat": 0.9, "dog": 0.1},
        embedding=(),
    )
    captures.append(store, "door", [capture], at=at(1))
    again = cli(*line).answer
    assert (again["stored"], again["known"]) == (0, 2)
    assert [row["request_id"] for row in again["waiting"]] == ["r2"]
    shown = cli("labels", "show", "door", "--json").answer
    assert (shown["agreed"], shown["disputed"], shown["waiting"]) == (2, [], ["r2"])
    assert [one["name"] for one in shown["annotators"]] == ["ann", "night"]
    assert "not captured (yet)" in cli("labels", "show", "door").out


def test_a_parquet_file_of_other_types(cli: Any, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    table = pa.table(
        {
            "request_id": pa.array([1, 2]),
            "label": pa.array(["cat", "dog"]).dictionary_encode(),
            "annotator": pa.array([b"ann", "Zoë".encode()]),
            "confidence": pa.array([Decimal("0.5"), None], pa.decimal128(3, 2)),
        }
    )
    pq.write_table(table, tmp_path / "labels.parquet")
    assert cli("feedback", "door", "--file", "labels.parquet", "--json").answer["stored"] == 2
    said = labels.read(open_store(world.folder), "door")
    assert [(one.request_id, one.label, one.annotator, one.confidence) for one in said] == [
        ("1", "cat", "ann", 0.5),
        ("2", "dog", "Zoë", 1.0),
    ]


def test_a_review_from_its_folder_to_the_next_version(cli: Any, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    store = open_store(world.folder)
    before = cli("dataset", "show", "pets", "--json").answer
    image = next(key for key in store.list("images/")).rsplit("/", 1)[1]
    (tmp_path / "queue.csv").write_text(
        "request_id,image,dataset,new_label,new_confidence,reviewer\n"
        f",{image},pets@1,dog,0.9,\n"
        f",{'1' * 64},pets@1,dog,,\n"
        f",{image},cars@1,dog,,\n"
        "r1,,,cat,,eve\n"
        "r2,,,,,\n"
        "r3,,,cow,,\n",
        encoding="utf-8",
    )
    cli("feedback", "door", "r1", "dog")
    line = ("labels", "import", "door", "queue.csv", "--annotator", "ann", "--json")
    ran = cli(*line)
    assert ran.code == 1
    answer = ran.answer
    assert (answer["stored"], answer["empty"], answer["dataset"]) == (2, 1, "pets@2")
    assert [row["line"] for row in answer["bad"]] == [3, 4, 7]
    (correction,) = answer["corrections"]
    assert (correction["image"], correction["label"], correction["by"]) == (image, "dog", "ann")
    assert cli(*line).answer["known"] == 2
    after = cli("dataset", "show", "pets", "--json").answer
    assert after["images"] == before["images"] and after["parent"] == 1
    assert "corrections" in cli("dataset", "show", "pets").out
    assert [one.label for one in labels.corrections(store, "pets")] == ["dog"]
    agreed = cli("labels", "show", "door", "--json").answer
    assert (agreed["agreed"], agreed["disputed"]) == (1, []), "a review settles what was said before"


def test_a_queue_is_exported(cli: Any, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    ran = cli("labels", "review", "door", "--budget", "3", "--to", "queue", "--json")
    assert ran.code == 0 and "cross-validation" in ran.err
    with (tmp_path / "queue" / "queue.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == len(ran.answer["queue"]["entries"]) <= 3
    assert (tmp_path / "queue" / "queue.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert cli("labels", "review", "door", "--to", "queue").code == 2
    assert cli("labels", "import", "door", "queue", "--annotator", "ann", "--json").answer["stored"] == 0
    refused = cli("labels", "import", "door", "store", "--annotator", "ann")
    assert refused.code == 2


def test_labels_are_told_by_class_and_disputes_by_who_says_what(cli: Any, world: Any) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    nobody = cli("labels", "show", "door")
    assert nobody.code == 0 and "labels review door" in nobody.err
    cli("feedback", "door", "r1", "cat", "--annotator", "ann")
    cli("feedback", "door", "r2", "cat", "--annotator", "ann")
    cli("feedback", "door", "r2", "dog", "--annotator", "bob")
    found = cli("labels", "show", "door", "--json").answer
    assert (found["agreed"], found["classes"], found["disputed"]) == (1, {"cat": 1}, ["r2"])
    assert found["views"] == {"r2": {"ann": "'cat'", "bob": "'dog'"}}
    shown = " ".join(cli("labels", "show", "door").out.split())
    assert "ann: 'cat', bob: 'dog'" in shown and "labels review door --to FOLDER" in shown
    assert "2: r1, r2" in shown, "that they are not captured"


def test_a_label_that_is_no_class_is_told_with_the_near_one_and_the_way_to_a_new_one(
    cli: Any, world: Any
) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    ran = cli("feedback", "door", "r1", "Cat")
    assert ran.code == 2 and "did you mean 'cat'?" in ran.err and "--new-class" in ran.err
    long = cli("feedback", "door", "r1", "c" * 5000)
    assert long.code == 2 and len(long.err) < 500


def test_a_name_with_accents_is_the_same_however_they_are_written(cli: Any, world: Any) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    composed, apart = "\u00fc", "u\u0308"
    assert cli("feedback", "door", "r1", apart, "--new-class", composed, "--json").answer["label"]
    (word,) = labels.read(open_store(world.folder), "door")
    assert word.label == composed


def test_a_quote_that_is_not_closed_spoils_its_row_and_is_told(cli: Any, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    rows = "".join(f"r{n},cat\r\n" for n in range(3, 50))
    (tmp_path / "labels.csv").write_text(f'request_id,label\r\nr1,cat\r\nr2,"cat\r\n{rows}', newline="")
    ran = cli("feedback", "door", "--file", "labels.csv", "--json")
    assert (ran.code, ran.answer["stored"]) == (1, 1)
    (bad,) = ran.answer["bad"]
    assert (
        bad["line"] == 3
        and "label goes on for 47 lines more" in bad["error"]
        and "not closed" in bad["error"]
    )
    (tmp_path / "long.csv").write_text('request_id,label\nr1,"' + "cat\n" * 50_000)
    ran = cli("feedback", "door", "--file", "long.csv")
    assert ran.code == 2 and "may not be closed" in ran.err


def test_a_reviewer_may_find_a_new_class(cli: Any, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    (tmp_path / "queue.csv").write_text("request_id,image,dataset,new_label\nr1,,,cow\n")
    line = ("labels", "import", "door", "queue.csv", "--annotator", "ann", "--json")
    assert "--new-class" in cli(*line).answer["bad"][0]["error"]
    assert cli(*line, "--new-class", "cow").answer["stored"] == 1


def test_faults_that_are_alike_are_told_once_and_fractions_may_have_a_comma(
    cli: Any, world: Any, tmp_path: Path
) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    rows = "".join(f"r{n};Cat;\r\n" for n in range(20))
    (tmp_path / "labels.csv").write_text(f"request_id;label;confidence\r\nr50;cat;0,5\r\n{rows}", newline="")
    ran = cli("feedback", "door", "--file", "labels.csv")
    assert (
        ran.out.count("did you mean 'cat'?") == 1
        and "lines 3, 4, 5, 6, 7 and 15 more: label 'Cat'" in ran.out
    )
    (word,) = labels.read(open_store(world.folder), "door")
    assert word.confidence == 0.5


def test_a_file_without_rows_and_one_of_a_spreadsheet(cli: Any, world: Any, tmp_path: Path) -> None:
    assert cli("promote", world.model, "--to", "door", "--force").code == 0
    (tmp_path / "labels.csv").write_text("request_id,label\n")
    assert "no rows below its header" in cli("feedback", "door", "--file", "labels.csv").out
    (tmp_path / "labels.xlsx").write_bytes(b"PK\x03\x04" + bytes(90))
    ran = cli("feedback", "door", "--file", "labels.xlsx")
    assert ran.code == 2 and "save its table as CSV UTF-8" in ran.err


@pytest.fixture
def gate(tmp_path: Path, photos: Path) -> str:
    """A deployment that has no model yet."""
    store = open_store(tmp_path / "store")
    import_dataset(store, photos, "pets", seed=0)
    return deployments.create(store, "gate", "pets", {}).name


def test_the_last_word_of_a_long_file_stands(cli: Any, gate: str, tmp_path: Path) -> None:
    others = "r2,cow\n" * 1200
    (tmp_path / "labels.csv").write_text(f"request_id,label\nr1,cat\nr1,dog\n{others}r1,cat\n")
    line = ("feedback", gate, "--file", "labels.csv", "--json")
    first = cli(*line).answer
    assert (first["stored"], first["outdated"]) == (3, [])
    said = labels.read(open_store(tmp_path / "store"), gate)
    assert [one.label for one in said] == ["cat", "dog", "cat"]
    again = cli(*line).answer
    assert (again["stored"], again["known"]) == (0, 2), "the same file again says nothing new"
    assert again["outdated"] == [{"line": 3, "request_id": "r1"}]


def test_the_latest_label_is_of_when_it_was_said(
    cli: Any, gate: str, tmp_path: Path, at: Callable[[float], datetime]
) -> None:
    said = at(0).astimezone(timezone(timedelta(hours=1)))
    word = Label(request_id="r1", label="cat", said_at=said, received_at=at(86_400))
    labels.add(open_store(tmp_path / "store"), gate, word)
    assert datetime.fromisoformat(cli("labels", "show", gate, "--json").answer["latest"]) == at(0)
    assert "the latest at (UTC) 2026-03-01 00:00:00" in " ".join(cli("labels", "show", gate).out.split())
