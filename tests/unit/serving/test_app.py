"""The routes over real HTTP on loopback: an engine behind uvicorn, a store in memory, and the client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import uvicorn

from autovision.errors import ImageTooLarge, InvalidImage, InvalidInput
from autovision.records.rollouts import RolloutPolicy
from autovision.serving.app import MAX_FEEDBACK, build_app
from autovision.serving.client import Client, ServerUnavailable
from autovision.serving.engine import EngineConfig
from autovision.serving.schema import Answer
from autovision.store import captures, labels
from tests.unit.serving.conftest import version
from tests.unit.serving.worlds import World, check_problem, until

REQUEST_ID = "20260301T120000.000000-abcdef"


def test_an_image_is_answered_and_captured_with_its_metadata(http: Any, world: World, png: Any) -> None:
    response = http.post(
        "/v1/predict",
        content=png(200),
        headers={"X-Autovision-Meta-Cell-Type": "poly", "Content-Type": "text/html"},
    )
    body = response.json()
    assert list(body) == ["model", "label", "probabilities", "request_id"]
    assert (body["model"], body["label"]) == ("m1", "bright")
    assert body["probabilities"]["bright"] == pytest.approx(200 / 255)
    assert world.engine.flush(5)
    (capture,) = captures.read(world.store, "shades").captures
    assert (capture.request_id, capture.metadata) == (body["request_id"], {"cell_type": "poly"})
    info = http.get("/v1/model").json()
    assert (info["requests"], info["answered"], info["captures"]["stored"]) == (1, 1, 1)
    assert info["captures"]["captured_through"] is not None


def test_a_form_with_one_file_is_answered_too(http: Any, png: Any) -> None:
    assert http.post("/v1/predict", files={"image": ("ü b.png", png(3))}).json()["label"] == "dark"


def test_several_images_are_answered_in_order_each_with_its_own_error(
    http: Any, world: World, png: Any
) -> None:
    images = [png(200), b"no image", b"", png(3), png(1, (1001, 1)), png(1, (1, 1))]
    files = [("image", (f"{number}.png", data)) for number, data in enumerate(images)]
    response = http.post("/v1/predict", files=files, headers={"x-autovision-meta-line": "a"})
    assert response.status_code == 200
    bright, broken, empty, dark, large, failed = response.json()
    assert list(bright) == ["model", "label", "probabilities", "request_id"]
    assert [bright["label"], dark["label"]] == ["bright", "dark"]
    kinds = [problem["type"].rpartition(":")[2] for problem in (broken, empty, large, failed)]
    assert kinds == ["invalid-image", "empty-body", "too-large", "internal"]
    assert [problem["status"] for problem in (broken, empty, large, failed)] == [422, 400, 413, 500]
    assert "variance" not in response.text
    assert world.engine.flush(5)
    stored = {capture.request_id: capture for capture in captures.read(world.store, "shades").captures}
    assert set(stored) == {bright["request_id"], dark["request_id"]}
    assert all(capture.metadata == {"line": "a"} for capture in stored.values())
    info = http.get("/v1/model").json()
    assert (info["requests"], info["answered"]) == (6, 2)
    assert info["errors"] == {"invalid-image": 1, "empty-body": 1, "too-large": 1, "internal": 1}


def test_too_many_images_are_refused_and_none_of_them_is_asked_about(
    http: Any, world: World, png: Any
) -> None:
    files = [("image", (f"{number}.png", png())) for number in range(33)]
    check_problem(http.post("/v1/predict", files=files), 413, "too-many-images", "33 images, and 32")
    assert world.predictors["m1"].batches == []
    assert len(http.post("/v1/predict", files=files[:32]).json()) == 32


def test_several_images_get_into_the_queue_together_or_not_at_all(
    make_predictor: Any, clock: Any, serve: Any, png: Any
) -> None:
    world = World(make_predictor, clock, max_waiting=4)
    url = serve(world)
    world.promote("m1")
    predictor = world.predictors["m1"]
    predictor.gate.clear()
    files = [("image", ("x.png", png()))] * 3
    with ThreadPoolExecutor(3) as pool, httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
        first = pool.submit(http.post, "/v1/predict", content=png())
        until(predictor.begun.is_set)
        waiting = pool.submit(http.post, "/v1/predict", files=files)
        until(lambda: world.engine.info().waiting == 3)
        response = http.post("/v1/predict", files=files)
        check_problem(response, 503, "queue-full")
        assert response.headers["retry-after"] == "1"
        assert world.engine.info().waiting == 3
        predictor.gate.set()
        assert first.result().status_code == 200
        assert [answer["label"] for answer in waiting.result().json()] == ["bright"] * 3


def test_refused_requests_name_the_fault_and_are_counted(http: Any, png: Any) -> None:
    check_problem(http.post("/v1/predict"), 400, "empty-body", "send the bytes")
    check_problem(http.post("/v1/predict", content=b"not an image"), 422, "invalid-image")
    check_problem(http.post("/v1/predict", content=png(1, (1001, 1))), 413, "too-large", "1001 pixels")
    check_problem(http.post("/v1/predict", content=bytes(2**20 + 1)), 413, "too-large", "1,048,576 bytes")
    chunks = iter([bytes(2**19)] * 4)
    check_problem(http.post("/v1/predict", content=chunks), 413, "too-large")
    bad_meta = {"x-autovision-meta-a": "x" * 999}
    check_problem(
        http.post("/v1/predict", content=png(), headers=bad_meta), 400, "bad-request", "999 characters"
    )
    gzip = {"content-encoding": "gzip"}
    check_problem(http.post("/v1/predict", content=png(), headers=gzip), 415, "unsupported-encoding")
    check_problem(http.get("/v1/predict"), 405, "method-not-allowed", "POST /v1/predict")
    check_problem(http.get("/v3/predict"), 404, "not-found", "POST /v1/predict")
    check_problem(http.post("/v1/predict/", content=png()), 404, "not-found", "POST /v1/predict")
    errors = http.get("/v1/model").json()["errors"]
    assert errors == {
        "empty-body": 1,
        "invalid-image": 1,
        "too-large": 3,
        "bad-request": 1,
        "unsupported-encoding": 1,
    }
    assert http.post("/v1/predict", content=png()).status_code == 200


def test_an_unexpected_failure_gives_nothing_away_and_is_logged_on_one_line(
    http: Any, png: Any, caplog: pytest.LogCaptureFixture
) -> None:
    response = http.post("/v1/predict", content=png(1, (1, 1)))
    check_problem(response, 500, "internal")
    assert "variance" not in response.text
    request_id = response.json()["request_id"]
    (line,) = (record.getMessage() for record in caplog.records if request_id in record.getMessage())
    assert "no variance in one pixel" in line and "\n" not in line
    assert http.post("/v1/predict", content=png()).status_code == 200


def test_without_a_model_it_says_so_and_when_to_come_back(serve: Any, world: World, png: Any) -> None:
    url = serve(world)
    with httpx.Client(base_url=url, trust_env=False) as http:
        response = http.post("/v1/predict", content=png())
        check_problem(response, 503, "no-model", "'shades'")
        assert response.headers["retry-after"] == "2"
        health = http.get("/v1/health")
        assert (health.status_code, health.json()["status"]) == (503, "waiting")
        check_problem(
            http.post("/v1/feedback", json={"request_id": REQUEST_ID, "label": "dark"}), 503, "no-model"
        )
        world.promote("m1")
        health = http.get("/v1/health")
        assert (health.status_code, health.json()["model"]) == (200, "m1")


def test_who_asks_a_server_that_settles_finds_its_model(serve: Any, world: World) -> None:
    world.promote("m1", wait=False)
    url = serve(world, settle_s=30.0)
    assert httpx.get(f"{url}/v1/health", trust_env=False).json()["model"] == "m1"


def test_a_full_queue_is_503_and_the_waiting_are_answered(
    make_predictor: Any, clock: Any, serve: Any, png: Any
) -> None:
    world = World(make_predictor, clock, max_waiting=2)
    url = serve(world)
    world.promote("m1")
    predictor = world.predictors["m1"]
    predictor.gate.clear()
    with ThreadPoolExecutor(3) as pool, httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
        first = pool.submit(http.post, "/v1/predict", content=png())
        until(predictor.begun.is_set)
        waiting = [pool.submit(http.post, "/v1/predict", content=png()) for _ in range(2)]
        until(lambda: world.engine.info().waiting == 2)
        response = http.post("/v1/predict", content=png())
        check_problem(response, 503, "queue-full")
        assert response.headers["retry-after"] == "1"
        assert http.get("/v1/health").status_code == 200
        predictor.gate.set()
        assert [future.result().status_code for future in (first, *waiting)] == [200] * 3


def test_a_promotion_and_a_store_outage_both_keep_it_answering(http: Any, world: World, png: Any) -> None:
    world.promote("m2")
    answer = http.post("/v1/predict", content=png(200)).json()
    assert (answer["model"], answer["label"]) == ("m2", "dark")
    world.store.away = True
    until(lambda: http.get("/v1/model").json()["following"]["error"])
    assert http.post("/v1/predict", content=png(200)).json()["model"] == "m2"
    response = http.post("/v1/feedback", json={"request_id": REQUEST_ID, "label": "dark"})
    check_problem(response, 503, "store-unavailable", "the disk is gone")
    assert int(response.headers["retry-after"]) >= 1
    world.store.away = False
    until(lambda: not http.get("/v1/model").json()["following"]["error"])
    assert http.get("/v1/model").json()["swaps"] == 1
    assert world.engine.flush(5)


def test_labels_one_or_many_are_stored_once(http: Any, world: World) -> None:
    one = {"request_id": REQUEST_ID, "label": "dark"}
    other = {"request_id": REQUEST_ID[:-1] + "0", "label": "bright", "annotator": "Zoë", "confidence": 0.25}
    assert http.post("/v1/feedback", json=one).json() == {"accepted": 1, "new": 1}
    assert http.post("/v1/feedback", json=[one, other]).json() == {"accepted": 2, "new": 1}
    stored = {row.label: row for row in labels.read(world.store, "shades")}
    assert (stored["bright"].annotator, stored["bright"].confidence) == ("Zoë", 0.25)
    assert (stored["dark"].annotator, stored["dark"].confidence) == ("unknown", 1.0)


def test_of_one_annotators_words_in_a_list_the_last_counts(http: Any, world: World) -> None:
    rows = [{"request_id": REQUEST_ID, "label": label} for label in ("dark", "bright", "dark", "bright")]
    assert http.post("/v1/feedback", json=rows).json() == {"accepted": 4, "new": 4}
    assert [row.label for row in labels.read(world.store, "shades")] == ["dark", "bright", "dark", "bright"]


def test_a_word_that_is_sent_late_does_not_overrule_what_was_said_since(http: Any, world: World) -> None:
    now, late = ({"request_id": REQUEST_ID, "label": label} for label in ("dark", "bright"))
    assert http.post("/v1/feedback", json=now).json()["new"] == 1
    assert http.post("/v1/feedback", json={**late, "said_at": "2026-01-01T00:00:00Z"}).json()["new"] == 0
    words = labels.read(world.store, "shades")
    assert [row.label for row in sorted(words, key=lambda row: row.when)] == ["bright", "dark"]
    assert http.post("/v1/feedback", json={**late, "said_at": "2026-01-01T00:00:00"}).status_code == 422


def test_a_list_with_one_unknown_label_stores_none_and_names_the_classes(http: Any, world: World) -> None:
    rows = [{"request_id": REQUEST_ID, "label": label} for label in ("dark", "drak")]
    response = http.post("/v1/feedback", json=rows)
    check_problem(response, 422, "unknown-label", "'bright', 'dark'")
    assert "did you mean 'dark'" in response.json()["detail"]
    assert labels.read(world.store, "shades") == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "0 labels"),
        (b"[" + b"0," * MAX_FEEDBACK + b"0]", f"{MAX_FEEDBACK + 1} labels"),
        (b"3", "label 0"),
        (b'{"label": "dark"}', "request_id"),
        (b'{"request_id": "../../models", "label": "dark"}', "request_id"),
        (f'{{"request_id": "{REQUEST_ID}\\n", "label": "dark"}}'.encode(), "request_id"),
        (f'{{"request_id": "{REQUEST_ID}", "label": ""}}'.encode(), "label"),
        (f'{{"request_id": "{REQUEST_ID}", "label": "dark", "confidence": 2}}'.encode(), "confidence"),
        (f'{{"request_id": "{REQUEST_ID}", "label": "dark", "confidence": NaN}}'.encode(), "confidence"),
        (f'{{"request_id": "{REQUEST_ID}", "label": "dark", "annotater": "x"}}'.encode(), "annotater"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_feedback_that_is_not_valid_is_refused(http: Any, body: bytes, fault: str) -> None:
    check_problem(http.post("/v1/feedback", content=body), 422, "invalid-feedback", fault)


@pytest.fixture
def marks_http(
    make_predictor: Any, clock: Any, marks: Any, serve: Any
) -> Iterator[tuple[httpx.Client, World]]:
    """A server of a model that answers any number of classes."""
    world = World(make_predictor, clock)
    world.predictors["marks"] = marks
    url = serve(world)
    world.promote("marks")
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client, world


def test_any_number_of_classes_is_answered_and_captured(marks_http: Any, png: Any) -> None:
    http, world = marks_http
    body = http.post("/v1/predict", content=png(128)).json()
    assert list(body) == ["model", "labels", "probabilities", "request_id"]
    assert body["labels"] == ["bright", "dark"]
    assert http.post("/v1/predict", content=png(250)).json()["labels"] == ["bright"]
    assert world.engine.flush(5)
    stored = captures.read(world.store, "shades").captures
    assert [capture.label for capture in stored] == [("bright", "dark"), ("bright",)]


def test_labels_of_any_number_of_classes_are_stored(marks_http: Any, png: Any) -> None:
    http, world = marks_http
    ids = [REQUEST_ID[:-1] + digit for digit in "0123"]
    rows = [
        {"request_id": ids[0], "labels": ["dark", "bright"]},
        {"request_id": ids[1], "labels": []},
        {"request_id": ids[2], "labels": ["dark"]},
    ]
    assert http.post("/v1/feedback", json=rows).json() == {"accepted": 3, "new": 3}
    assert http.post("/v1/feedback", json=rows[0]).json() == {"accepted": 1, "new": 0}
    stored = {row.request_id: row.label for row in labels.read(world.store, "shades")}
    assert stored == {ids[0]: ("bright", "dark"), ids[1]: (), ids[2]: ("dark",)}
    with Client(str(http.base_url)) as client:
        answer = client.predict(png(128))
        assert answer.label == answer.labels == ("bright", "dark")
        assert client.feedback(answer.request_id, ("dark",)).new == 1
        with pytest.raises(InvalidInput, match="any number of classes; send labels, a list"):
            client.feedback(answer.request_id, "dark")


@pytest.mark.parametrize(
    ("row", "kind", "fault"),
    [
        ({"label": "dark"}, "invalid-feedback", "any number of classes; send labels, a list"),
        ({"labels": "dark"}, "invalid-feedback", "labels is a list"),
        ({"labels": ["dark"], "label": "dark"}, "invalid-feedback", "either label or labels"),
        ({"labels": ["dark", ""]}, "invalid-feedback", "1 to 256 characters"),
        ({"labels": ["dark", "drak"]}, "unknown-label", "did you mean 'dark'"),
    ],
)
def test_labels_that_are_not_valid_are_refused(marks_http: Any, row: Any, kind: str, fault: str) -> None:
    http, world = marks_http
    check_problem(http.post("/v1/feedback", json={"request_id": REQUEST_ID, **row}), 422, kind, fault)
    assert labels.read(world.store, "shades") == []


def test_a_model_of_one_class_takes_no_list(http: Any) -> None:
    response = http.post("/v1/feedback", json={"request_id": REQUEST_ID, "labels": ["dark"]})
    check_problem(response, 422, "invalid-feedback", "may have one class; send label")


def test_a_pinned_server_needs_no_deployment_and_takes_no_labels(
    make_predictor: Any, clock: Any, serve: Any, png: Any
) -> None:
    world = World(make_predictor, clock, deployment=None, model="m2")
    url = serve(world)
    until(lambda: world.engine.info().model == "m2")
    with httpx.Client(base_url=url, trust_env=False) as http:
        assert http.post("/v1/predict", content=png()).json()["model"] == "m2"
        feedback = http.post("/v1/feedback", json={"request_id": REQUEST_ID, "label": "dark"})
        check_problem(feedback, 409, "no-deployment")
        assert http.get("/v1/model").json()["captures"] is None


@pytest.mark.parametrize("config", [{}, {"deployment": "a", "model": "b"}])
def test_what_to_serve_must_be_one_thing(config: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="either a deployment or a model"):
        EngineConfig(**config)


def test_stopping_stores_what_was_captured_and_ends_all_threads(
    make_predictor: Any, clock: Any, png: Any
) -> None:
    world = World(make_predictor, clock)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(world.engine), log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    until(lambda: server.started)
    world.promote("m1")
    world.engine.check()
    with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
        answer = client.predict(png())
    server.should_exit = True
    thread.join(20)
    assert [capture.request_id for capture in captures.read(world.store, "shades").captures] == [
        answer.request_id
    ]
    with pytest.raises(RuntimeError, match="batcher, follower, tally, capture"):
        world.engine.check()


def test_the_client_speaks_all_routes_and_raises_the_librarys_errors(
    url: str, world: World, png: Any
) -> None:
    with Client(url) as client:
        answer = client.predict(png(200), metadata={"cell_type": "pöly"})
        assert answer.label == "bright"
        assert client.wait_captured(5)
        (capture,) = captures.read(world.store, "shades").captures
        assert capture.metadata == {"cell_type": "pöly"}
        assert client.feedback(answer.request_id, "dark").new == 1
        assert client.info().answered == 1
        assert client.health().status == "ready"
        with pytest.raises(InvalidImage, match="HTTP 422"):
            client.predict(b"text")
        with pytest.raises(ImageTooLarge):
            client.predict(bytes(2**20 + 1))
        with pytest.raises(InvalidInput, match="none of the model's classes"):
            client.feedback(answer.request_id, "grey")
        with pytest.raises(ServerUnavailable, match="HTTP 500"):
            client.predict(png(1, (1, 1)))
        with pytest.raises(InvalidInput, match="metadata"):
            client.predict(png(), metadata={"a.b": "x"})


def test_the_client_names_the_caller_who_keeps_a_model_during_a_rollout(
    url: str, world: World, png: Any
) -> None:
    world.begin("m2", RolloutPolicy(canary=(0.5,)))
    arms = world.engine._now.arms
    with Client(url) as client:
        for caller in map(str, range(8)):
            expected = "m2" if arms.is_canary(caller) else "m1"
            assert client.predict(png(), key=caller).model == expected
            (one,) = client.predict_all([png()], key=caller)
            several = client.predict_all([png(), png()], key=caller)
            assert {answer.model for answer in (one, *several) if isinstance(answer, Answer)} == {expected}
    assert {arms.is_canary(caller) for caller in map(str, range(8))} == {True, False}


def test_labels_may_be_classes_that_only_a_challenger_knows(http: Any, world: World) -> None:
    row = {"request_id": REQUEST_ID, "label": "grey"}
    check_problem(http.post("/v1/feedback", json=row), 422, "unknown-label")
    world.predictors["m2"].model = version("m2").with_(classes=("bright", "grey", "dark"))
    world.begin("m2", RolloutPolicy(canary=(0.5,)))
    assert http.post("/v1/feedback", json=row).json() == {"accepted": 1, "new": 1}
    check_problem(http.post("/v1/feedback", json=row | {"label": "green"}), 422, "unknown-label", "'grey'")


def test_the_client_waits_for_a_server_that_asks_it_to_but_not_for_ever(
    serve: Any, world: World, png: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = serve(world)

    def too_long(pause_s: float) -> None:
        raise AssertionError(f"the server's wish of {pause_s} s was granted")

    with monkeypatch.context() as patch, Client(url, retry_for_s=0.5) as client:
        patch.setattr("autovision.serving.client.sleep", too_long)
        with pytest.raises(ServerUnavailable, match="'shades' has no loaded model"):
            client.predict(png())
    promotion = threading.Timer(0.5, world.promote, ["m1"])
    promotion.start()
    with Client(url, retry_for_s=10) as client:
        assert client.predict(png()).model == "m1"
    promotion.join()


def test_the_client_tries_again_until_a_server_is_there(serve: Any, world: World, png: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with (
            Client(address, retry_for_s=0.3) as client,
            pytest.raises(ServerUnavailable, match="autovision serve"),
        ):
            client.info()


def test_the_client_sends_several_images_at_once(url: str, png: Any) -> None:
    with Client(url) as client:
        bright, broken, dark = client.predict_all([png(200), b"text", png(3)], metadata={"line": "a"})
        assert isinstance(bright, Answer) and isinstance(dark, Answer)
        assert (bright.label, dark.label) == ("bright", "dark")
        assert isinstance(broken, InvalidImage)
        (one,) = client.predict_all([png(200)])
        assert isinstance(one, Answer)
        (none,) = client.predict_all([b"text"])
        assert isinstance(none, InvalidImage)
        assert client.predict_all([]) == []
        with pytest.raises(InvalidInput, match="33 images"):
            client.predict_all([png()] * 33)


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://", "http://[::1"])
def test_the_client_refuses_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidInput, match="http://127"):
        Client(url)
