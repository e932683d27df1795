from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autovision.labelling.consensus import consensus
from autovision.records.deployments import Capture
from autovision.store import captures, open_store
from autovision.store import labels as stored_labels


@pytest.fixture
def door(cli: Any, world: Any) -> str:
    """A deployment that serves the model."""
    assert cli("promote", world.model, "--to", "door").code == 0
    return "door"


def test_promote_prints_every_gate_with_its_numbers(cli: Any, world: Any) -> None:
    ran = cli("promote", world.model, "--to", "door")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    shown = " ".join(ran.out.split())
    assert "accepted yes" in shown and "beats_majority" in shown and "majority_accuracy 0.5" in shown
    assert world.model in ran.out


def test_a_refused_promotion_exits_with_8_and_may_be_forced(cli: Any, world: Any, refusal: None) -> None:
    refused = cli("promote", world.model, "--to", "door", "--json")
    assert refused.code == 8
    assert refused.answer["accepted"] is False
    (gate,) = refused.answer["numbers"]["gates"]
    assert not gate["passed"] and gate["reason"]
    assert "--force" in refused.err
    assert "FAILED" in cli("promote", world.model, "--to", "door").out
    assert cli("model", "show", "door").code == 3
    forced = cli("promote", world.model, "--to", "door", "--force", "--json")
    assert forced.code == 0 and forced.answer["numbers"]["overruled"] is True
    assert cli("model", "show", "door", "--json").answer["model"] == world.model


@pytest.fixture
def refusal(world: Any) -> None:
    """Make the stored predictions on the test split those of a model that knows nothing."""
    import numpy as np

    from autovision.api import AutoVision
    from autovision.records.datasets import Split
    from autovision.registry.evaluate import Predictions, predictions
    from autovision.store import keys

    av = AutoVision(world.folder)
    version = av.dataset("pets")
    real = predictions(av.store, world.model, version, Split.TEST)
    av.store.delete(keys.evaluation(world.model, version.digest, Split.TEST))
    from autovision.registry.evaluate import store_predictions

    blind = Predictions(real.images, real.labels, np.full_like(real.probabilities, 0.5), real.metadata)
    store_predictions(av.store, world.model, version, Split.TEST, blind)


def test_rollback_without_an_earlier_champion(cli: Any, door: str) -> None:
    ran = cli("rollback", door, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "no earlier model" in ran.err


def test_why_lists_decisions_oldest_first(cli: Any, world: Any, door: str) -> None:
    cli("promote", world.model, "--to", door)
    decisions = cli("controller", "why", door, "--json").answer["decisions"]
    assert [each["what"].partition(":")[0] for each in decisions] == [
        "promote the first model",
        "nothing to do",
    ]
    shown = cli("controller", "why", door).out
    assert shown.index("promote the first model") < shown.index("nothing to do")
    latest = cli("controller", "why", door, "--last", "1")
    assert "nothing to do" in latest.out and "promote the first model" not in latest.out
    assert "The latest 1 of 2 decisions" in latest.out
    assert cli("controller", "why", "nowhere").code == 3


def test_a_port_in_use_is_said_before_anything_is_started(cli: Any, world: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = cli("serve", world.model, "--port", port, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert str(port) in ran.err and "in use" in ran.err


def test_a_certificate_without_its_key_is_said_before_anything_is_started(cli: Any, world: Any) -> None:
    for option in ("--tls-cert", "--tls-key"):
        ran = cli("serve", world.model, option, "some.pem", "--json")
        assert (ran.code, ran.out) == (2, "")
        assert "belong together" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), []),
        (("--require-token",), ["no token"]),
        (("--host", "0.0.0.0"), ["no token", "can be read"]),
        (("--host", "0.0.0.0", "--no-require-token"), ["whoever reaches", "can be read"]),
    ],
)
def test_what_others_may_do_with_a_server_is_told_before_it_starts(
    cli: Any, world: Any, options: tuple[str, ...], told: list[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        line = ("serve", world.model, "--port", taken.getsockname()[1], *options)
        ran = cli(*line)
        cli("token", "create", "--scope", "predict", "--name", "line-1")
        with_token = cli(*line)
    remarks = ran.err.splitlines()
    assert "in use" in remarks.pop()
    assert len(remarks) == len(told) and all(part in line for part, line in zip(told, remarks, strict=True))
    assert "no token" not in with_token.err and "whoever" not in with_token.err
    assert ("can be read" in with_token.err) == ("--host" in options)


# ---------------------------------------------------------------------------------------------- feedback


def test_feedback_is_stored_once(cli: Any, world: Any, door: str) -> None:
    line = ("feedback", door, "request-1", "cat", "--annotator", "ann", "--confidence", "0.75", "--json")
    assert cli(*line).answer == {"deployment": door, "request_id": "request-1", "label": "cat", "new": True}
    assert cli(*line).answer["new"] is False
    (label,) = stored_labels.read(open_store(world.folder), door)
    assert (label.request_id, label.label, label.annotator, label.confidence) == (
        "request-1",
        "cat",
        "ann",
        0.75,
    )


def test_a_model_that_answered_nothing_cannot_be_adapted(cli: Any, door: str) -> None:
    ran = cli("adapt", door)
    assert ran.code == 2 and "0 captured requests" in ran.err


def test_a_class_is_new_only_where_it_is_said_to_be(cli: Any, world: Any, door: str) -> None:
    assert cli("feedback", door, "r1", "cow", "--new-class", "cow", "--json").answer["label"] == "cow"
    assert cli("feedback", door, "r2", "cwo", "--new-class", "cow").code == 2
    Path("labels.csv").write_text("request_id,label\nr3,cow\nr4,horse\nr5,cat\n")
    ran = cli("feedback", door, "--file", "labels.csv", "--new-class", "cow", "--json")
    assert (ran.code, ran.answer["stored"], [bad["line"] for bad in ran.answer["bad"]]) == (1, 2, [3])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["door", "r1", "cow"], 2, "cow"),
        (["door", "r/1", "cat"], 2, "r/1"),
        (["door", "r1", "cat", "--confidence", "1.5"], 2, "1.5"),
        (["door", "r1", "cat", "--confidence", "nan"], 2, "nan"),
        (["door", "r1"], 2, "LABEL"),
        (["door", "r1", "cat", "dog"], 2, "exactly one"),
        (["door", "r1", "--none"], 2, "0 labels"),
        (["door"], 2, "--file"),
        (["door", "r1", "cat", "--file", "labels.csv"], 2, "not both"),
        (["door", "--file", "missing.csv"], 2, "missing.csv"),
        (["nowhere", "r1", "cat"], 3, "nowhere"),
        (["nowhere", "--file", "one.csv"], 3, "nowhere"),
    ],
)
def test_feedback_that_cannot_be_used(
    cli: Any, door: str, arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "one.csv").write_text("request_id,label\nr1,cat\n")
    ran = cli("feedback", *arguments, "--json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ") and said in ran.err


def test_a_file_of_labels_with_bad_rows(cli: Any, world: Any, door: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "\ufeffrequest_id, label ,annotator,confidence\n"
        "r1,cat,ann,0.5\n"
        "r2,cow,,\n"
        ",dog,,\n"
        "r3,dog,,sure\n"
        "r4,dog,,\n"
        "r4,dog,,\n"
        "r5,dog,,2\n"
        "r6\n",
        encoding="utf-8",
    )
    ran = cli("feedback", door, "--file", "labels.csv", "--annotator", "night shift", "--json")
    assert ran.code == 1
    answer = ran.answer
    assert (answer["stored"], answer["known"]) == (2, 1)
    assert [row["line"] for row in answer["bad"]] == [3, 4, 5, 8, 9]
    for row, word in zip(answer["bad"], ("cow", "request_id", "sure", "2", "label"), strict=True):
        assert word in row["error"]
    found = {label.request_id: label for label in stored_labels.read(open_store(world.folder), door)}
    assert (found["r1"].annotator, found["r1"].confidence) == ("ann", 0.5)
    assert (found["r4"].annotator, found["r4"].confidence) == ("night shift", 1.0)
    shown = cli("feedback", door, "--file", "labels.csv").out
    assert "line 3" in shown and "5 rows not usable" in shown


@pytest.mark.parametrize(
    "content",
    [
        "request_id;label;confidence\r\nr1;cat;0.5\r\n;;\r\nr2;dog;\r\n".encode("utf-8-sig"),
        "request_id\tlabel\tconfidence\r\nr1\tcat\t0.5\r\nr2\tdog\t\r\n".encode("utf-16"),
        b'request_id,label,confidence,,\n"r1","cat",0.5,,\n,,,,\nr2,dog,,,\n',
    ],
    ids=["semicolons", "utf-16", "empty rows and columns"],
)
def test_files_as_spreadsheets_write_them(
    cli: Any, world: Any, door: str, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    answer = cli("feedback", door, "--file", "labels.csv", "--json").answer
    assert (answer["stored"], answer["bad"]) == (2, [])
    found = {each.request_id: each for each in stored_labels.read(open_store(world.folder), door)}
    assert [(found[r].label, found[r].confidence) for r in ("r1", "r2")] == [("cat", 0.5), ("dog", 1.0)]


def test_a_row_with_more_cells_than_the_header_is_not_read_as_if_it_had_not(
    cli: Any, world: Any, door: str, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("request_id,label,confidence\nr1,cat,0,9\nr2,cat,0.9\n")
    ran = cli("feedback", door, "--file", "labels.csv", "--json")
    assert (ran.code, ran.answer["stored"]) == (1, 1)
    (bad,) = ran.answer["bad"]
    assert bad["line"] == 2 and "1 cells more than the header" in bad["error"]


def test_of_one_annotators_words_in_a_file_the_last_counts(
    cli: Any, world: Any, door: str, tmp_path: Path
) -> None:
    rows = "".join(f"r1,{name},ann\n" for name in ("dog", "cat", "dog", "cat"))
    (tmp_path / "labels.csv").write_text("request_id,label,annotator\n" + rows)
    assert cli("feedback", door, "--file", "labels.csv", "--json").answer["stored"] == 4
    said = stored_labels.read(open_store(world.folder), door)
    assert [each.label for each in said] == ["dog", "cat", "dog", "cat"]


def test_an_old_file_that_is_given_again_overrules_nobody(
    cli: Any, world: Any, door: str, tmp_path: Path
) -> None:
    line = ("feedback", door, "--file", "labels.csv", "--annotator", "ann", "--json")
    (tmp_path / "labels.csv").write_text("request_id,label\nr1,cat\nr2,cat\n")
    assert cli(*line).answer["stored"] == 2
    assert cli("feedback", door, "r1", "dog", "--annotator", "ann", "--json").answer["new"] is True
    again = cli(*line)
    assert (again.code, again.answer["stored"], again.answer["known"]) == (0, 0, 1)
    assert again.answer["outdated"] == [{"line": 2, "request_id": "r1"}]
    assert "column said_at" in cli(*line[:-1]).out
    (tmp_path / "labels.csv").write_text(
        "request_id,label,said_at\nr1,cat,2026-01-02T03:04:05Z\nr2,dog,2026-01-02 03:04:05\nr2,dog,yesterday\n"
    )
    dated = cli(*line)
    assert [row["line"] for row in dated.answer["bad"]] == [3, 4]
    assert all("no time with its zone" in row["error"] for row in dated.answer["bad"])
    assert dated.answer["outdated"] == [{"line": 2, "request_id": "r1"}]
    agreed = consensus(stored_labels.read(open_store(world.folder), door)).agreed
    assert {request: label.label for request, label in agreed.items()} == {"r1": "dog", "r2": "cat"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"request_id,label,label\nr1,cat,dog\n", "'label' more than once"),
        (b"request,label\nr1,cat\n", "request_id"),
        (b"", "no header"),
        (b"request_id,label\n\xff\xfe,cat\n", "UTF-8"),
    ],
)
def test_a_file_that_is_no_table_of_labels(
    cli: Any, door: str, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    ran = cli("feedback", door, "--file", "labels.csv", "--json")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


# ----------------------------------------------------------------------------------------------- monitor


def _capture(number: int, model: str, at: datetime, embedding: tuple[float, ...]) -> Capture:
    return Capture(
        request_id=f"r{number}",
        deployment="door",
        model=model,
        received_at=at + timedelta(seconds=number),
        latency_ms=1,
        image="0" * 64,
        label="cat",
        probabilities={"cat": 0.9, "dog": 0.1},
        embedding=embedding,
    )


def test_monitor_says_how_many_requests_are_missing(
    cli: Any, world: Any, door: str, at: Callable[[float], datetime]
) -> None:
    ran = cli("monitor", door, "--json")
    assert ran.code == 0
    assert ran.answer == {"examined": False, "requests": 0, "window": 100, "missing": 100}
    some = [_capture(number, world.model, at(0), (0.0, 1.0)) for number in range(7)]
    others = [_capture(90, "another-model", at(0), (0.0, 1.0)), _capture(91, world.model, at(0), ())]
    captures.append(open_store(world.folder), door, [*some, *others], at=at(100))
    assert cli("monitor", door, "--json").answer["missing"] == 93
    assert "93 are missing" in cli("monitor", door).out


def test_monitor_of_what_does_not_exist_or_serves_nothing(cli: Any, world: Any, refusal: None) -> None:
    assert cli("monitor", "door", "--json").code == 3
    assert cli("promote", world.model, "--to", "door").code == 8
    ran = cli("monitor", "door", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert "no model yet" in ran.err


def shifted_window(world: Any, at: Callable[[float], datetime]) -> list[Any]:
    """A full window of requests that nobody would take for those of the training domain."""
    import numpy as np

    from autovision.model import bundle
    from autovision.model.version import read_version

    store = open_store(world.folder)
    reference = bundle.load_reference(store, read_version(store, world.model))
    rng = np.random.default_rng(0)
    shifted = rng.normal(reference.mean() + 20, 1.0, size=(120, reference.shape[1]))
    return [_capture(number, world.model, at(0), tuple(row)) for number, row in enumerate(shifted.tolist())]


def test_monitor_reports_drift(
    cli: Any, world: Any, door: str, at: Callable[[float], datetime], tmp_path: Path
) -> None:
    shifted = shifted_window(world, at)
    assert "No window" in cli("monitor", door, "--history").out
    captures.append(open_store(world.folder), door, shifted, at=at(1000))
    answer = cli("monitor", door, "--json").answer
    assert answer["examined"] is True and answer["report"]["alarm"] is True
    assert cli("monitor", door, "--json").answer["examined"] is False, "each request is examined once"
    (listed,) = cli("monitor", door, "--history", "--json").answer
    assert listed == answer["report"]
    assert "DRIFT" in cli("monitor", door, "--history").out
    again = cli("monitor", door, "--html", tmp_path / "drift.html")
    assert "93" not in again.out and "page" in again.err
    page = (tmp_path / "drift.html").read_text(encoding="utf-8")
    assert "Drift in 100 requests" in page and "data:image/jpeg" in page, "typical images, at least"
    assert cli("monitor", door, "--html", tmp_path / "nowhere" / "drift.html").code != 0
    assert listed["id"] in cli("monitor", door, "--history").out
    one = cli("monitor", door, "--report", listed["id"], "--html", tmp_path / "one.html", "--json")
    assert one.answer == {"examined": False, "report": listed}
    assert (tmp_path / "one.html").read_text(encoding="utf-8") == page
    unknown = cli("monitor", door, "--report", "nope")
    assert unknown.code == 3 and "--history" in unknown.err
    assert cli("monitor", door, "--report", "nope", "--history").code == 2
    (told,) = cli("report", "--json").answer
    assert told["alarm"] is True and "input" in told["alarming"]


def test_monitor_shows_what_each_detector_says(
    cli: Any, world: Any, door: str, at: Callable[[float], datetime]
) -> None:
    captures.append(open_store(world.folder), door, shifted_window(world, at), at=at(1000))
    ran = cli("monitor", door)
    assert "ALARM" in ran.out and "prediction" in ran.out and "most unlike" in ran.out
    assert "not kept" in ran.err


# -------------------------------------------------------------------------------------------- controller


def test_the_controller_does_what_is_due_without_searching(
    cli: Any, world: Any, door: str, at: Callable[[float], datetime]
) -> None:
    """Nothing is queued, so that Ray is not needed."""
    nothing = cli("controller", "run", "--once", "--json")
    assert (nothing.code, nothing.answer) == (0, [])
    captures.append(open_store(world.folder), door, shifted_window(world, at), at=at(1000))
    ran = cli("controller", "run", "--once", "--json")
    assert ran.code == 0
    assert [event["stage"] for event in ran.answer] == ["monitoring", "retraining"]
    assert ran.answer[0]["record"]["alarm"] is True
    assert ran.answer[1]["record"]["accepted"] is False
    again = cli("controller", "run", "--once")
    assert (again.code, again.out) == (0, "")
    assert "nothing to do" in again.err


def test_a_second_controller_is_refused(cli: Any, world: Any) -> None:
    from autovision.store import lease

    held = lease.acquire(open_store(world.folder), "controller", "another process", 30)
    assert held is not None
    with held:
        ran = cli("controller", "run", "--once", "--json")
    assert (ran.code, ran.out) == (4, "")
    assert "another controller" in ran.err
