"""The server on real Ray Serve: promotions under load, captures, bad input, and a replica that is killed."""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import cloudpickle, serve
from ray.exceptions import RayError
from ray.serve.schema import DeploymentStatus, ReplicaState

from autovision.errors import Conflict, InvalidImage, InvalidInput, NotFound
from autovision.promotion.rollout import go_on
from autovision.records.deployments import Decision, DecisionKind
from autovision.records.models import ModelVersion
from autovision.records.rollouts import Rollout, RolloutPolicy
from autovision.records.runtimes import EVALUATED
from autovision.records.tokens import Scope
from autovision.registry import deployments
from autovision.serving import deploy
from autovision.serving.client import Client, NotAllowed, ServerUnavailable
from autovision.serving.limits import Limits
from autovision.serving.readiness import ServerStartFailed, exactly
from autovision.serving.scaling import LOOK_BACK_S, Scaling
from autovision.serving.tls import Tls
from autovision.space.config import TrialConfig
from autovision.store import captures, keys, labels, records, tokens
from autovision.store.protocol import Store
from tests.integration.shades import (
    AT,
    CLASSES,
    Judged,
    Shades,
    expected_label,
    load,
    png,
    promote,
    send,
    shades_store,
    under_load,
    until,
    version_of,
)
from tests.unit.serving.worlds import self_signed

# Replicas cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return shades_store(tmp_path_factory.mktemp("serving") / "store")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def server(cluster: None, store: Store) -> Iterator[deploy.ServerHandle]:
    handle = deploy.start(store.uri, deployment="shades", port=0, load=load)
    yield handle
    handle.stop()


@pytest.fixture(scope="module")
def client(server: deploy.ServerHandle) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_before_the_first_promotion_it_says_so_and_then_it_answers(
    server: deploy.ServerHandle, client: Client, store: Store
) -> None:
    assert client.health().status == "waiting"
    response = httpx.post(f"{server.url}/v1/predict", content=png(10), trust_env=False)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert "'shades'" in response.json()["detail"]
    promote(store, "shades", "shades-1")
    assert client.predict(png(255)).model == "shades-1", "the client waits as the server asks"


def test_promotions_under_load_fail_no_request_and_every_answer_is_its_models(
    server: deploy.ServerHandle, client: Client, store: Store
) -> None:
    before = client.info()
    stop = Event()
    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, server.url, stop, seed) for seed in range(4)]
        try:
            for model_id in ("inverse-2", "shades-1", "inverse-2", "shades-1"):
                time.sleep(0.5)
                promote(store, "shades", model_id)
                until(lambda wanted=model_id: client.info().model == wanted, f"serving {model_id}")
            time.sleep(0.5)
        finally:
            stop.set()
    traffic = [sender.result() for sender in senders]
    assert [failure for part in traffic for failure in part.failures] == []
    answers = [answer for part in traffic for answer in part.answers]
    assert len(answers) > 100
    assert {answer.model for _, answer in answers} == {"shades-1", "inverse-2"}
    for level, answer in answers:
        assert answer.label == expected_label(answer.model, level)
        assert answer.label == max(answer.probabilities, key=answer.probabilities.__getitem__)
    after = client.info()
    assert after.swaps - before.swaps == 4
    assert after.answered - before.answered == len(answers)

    assert server.flush()
    state = client.info().captures
    assert state is not None and (state.pending, state.dropped, state.error) == (0, 0, None)
    stored = {capture.request_id: capture for capture in captures.read(store, "shades").captures}
    assert len({answer.request_id for _, answer in answers}) == len(answers), "request ids are unique"
    for level, answer in answers:
        capture = stored[answer.request_id]
        assert (capture.model, capture.label) == (answer.model, answer.label)
        assert capture.probabilities == pytest.approx(answer.probabilities)
        assert capture.embedding[0] == pytest.approx(level / 255, abs=1e-6)
        assert captures.read_image(store, capture) == png(level)
        assert capture.metadata["sender"] in "0123"
        assert capture.latency_ms > 0


STEPS = RolloutPolicy(shadow_requests=30, canary=(0.2, 0.6), step_requests=30, step_s=0.2)


def begin(store: Store, model_id: str) -> None:
    """Begin a rollout as a promotion does once its gates have passed."""
    at = datetime.now(UTC)
    decision = Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.PROMOTE,
        deployment="shades",
        accepted=True,
        what="promote",
        why="a test wants it",
        subject=model_id,
        created_at=at,
    )
    rollout = Rollout(
        id=decision.id,
        model=model_id,
        steps=STEPS.steps(),
        **STEPS.model_dump(include={"false_alarm", "error_margin", "latency_ratio"}),
        began_at=at,
        step_began_at=at,
    )
    deployments.begin_rollout(store, deployments.get(store, "shades"), rollout, decision)


def turns(store: Store, timeout_s: float = 40.0) -> list[Decision]:
    """Take the steps of a rollout to its end, as whoever serves does; what was decided."""
    decided: list[Decision] = []

    def over() -> bool:
        decision = go_on(store, "shades")
        decided.extend([decision] if decision else [])
        return deployments.get(store, "shades").rollout is None

    until(over, "the end of the rollout", timeout_s)
    return decided


def test_a_challenger_takes_over_as_shadow_and_canary_and_no_request_fails(
    server: deploy.ServerHandle, client: Client, store: Store
) -> None:
    begin(store, "inverse-2")
    decided: list[Decision] = []
    answers = under_load(server.url, lambda: decided.extend(turns(store)))
    assert [decision.kind for decision in decided] == [DecisionKind.ADVANCE] * 3
    assert "its label was the champion's in 0 of" in decided[0].why
    until(lambda: client.info().model == "inverse-2", "serving inverse-2")
    for level, answer in answers:
        assert answer.label == expected_label(answer.model, level)
    assert {answer.model for _, answer in answers} == {"shades-1", "inverse-2"}
    assert server.flush()
    shadowed = [c for c in captures.read(store, "shades").captures if c.shadow is not None]
    assert len(shadowed) >= 30
    assert all((c.model, c.shadow.model) == ("shades-1", "inverse-2") for c in shadowed if c.shadow)
    assert all(c.label != c.shadow.label for c in shadowed if c.shadow)


def test_a_challenger_that_fails_is_rolled_back_by_itself_and_no_caller_notices(
    server: deploy.ServerHandle, client: Client, store: Store
) -> None:
    begin(store, "failing-4")
    deployments.decide(store, "shades", lambda d: d.with_(rollout=d.rollout and d.rollout.with_(at=2)), None)
    decided: list[Decision] = []
    answers = under_load(server.url, lambda: decided.extend(turns(store)))
    assert [decision.kind for decision in decided] == [DecisionKind.ROLLBACK]
    assert "of the challenger failed" in decided[0].why
    assert {answer.model for _, answer in answers} == {"inverse-2"}
    promote(store, "shades", "shades-1")
    until(lambda: client.info().model == "shades-1", "serving shades-1")


def test_bad_input_gets_its_status_while_good_requests_go_on(
    server: deploy.ServerHandle, client: Client
) -> None:
    bad: list[tuple[int, str, dict[str, Any]]] = [
        (400, "empty-body", {"method": "POST", "url": "/v1/predict", "content": b""}),
        (422, "invalid-image", {"method": "POST", "url": "/v1/predict", "content": b"text\nnamed .png"}),
        (413, "too-large", {"method": "POST", "url": "/v1/predict", "content": bytes(33 * 2**20)}),
        (413, "too-large", {"method": "POST", "url": "/v1/predict", "content": iter([bytes(2**20)] * 40)}),
        (400, "bad-request", {"method": "POST", "url": "/v1/predict", "files": {"a": (None, b"1")}}),
        (413, "too-many-images", {"method": "POST", "url": "/v1/predict", "files": [("a", b"1")] * 33}),
        (404, "not-found", {"method": "GET", "url": "/nowhere%0Aforged"}),
        (405, "method-not-allowed", {"method": "GET", "url": "/v1/predict"}),
        (422, "invalid-feedback", {"method": "POST", "url": "/v1/feedback", "json": {"request_id": "../x"}}),
    ]
    stop = Event()
    with (
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http,
    ):
        sender = pool.submit(send, server.url, stop, 9)
        try:
            for status, kind, request in bad:
                response = http.request(**request)
                assert (response.status_code, response.json()["type"]) == (
                    status,
                    f"urn:autovision:problem:{kind}",
                )
                assert response.headers["content-type"] == "application/problem+json"
            form = http.post("/v1/predict", files={"file": ("a b.png", png(250), "image/png")})
            assert form.json()["label"] == expected_label(form.json()["model"], 250)
        finally:
            stop.set()
    assert sender.result().failures == []
    assert len(sender.result().answers) > 5
    assert client.info().errors["invalid-image"] >= 1


def test_labels_are_stored_and_a_wrong_one_is_told_the_classes(client: Client, store: Store) -> None:
    answer = client.predict(png(255))
    receipt = client.feedback(answer.request_id, "dark", annotator="Zoë", confidence=0.5)
    assert (receipt.accepted, receipt.new) == (1, 1)
    assert client.feedback(answer.request_id, "dark", annotator="Zoë", confidence=0.5).new == 0
    (label,) = (row for row in labels.read(store, "shades") if row.request_id == answer.request_id)
    assert (label.label, label.annotator, label.confidence) == ("dark", "Zoë", 0.5)
    with pytest.raises(InvalidInput, match=r"'darkk'.*'bright', 'dark'.*did you mean 'dark'"):
        client.feedback(answer.request_id, "darkk")


def test_a_model_that_does_not_load_leaves_the_old_one_answering(client: Client, store: Store) -> None:
    served = client.info().model
    assert served is not None
    promote(store, "shades", "broken-3")
    try:
        until(lambda: client.info().following.attempts, "a failed load")
        info = client.info()
        assert (info.model, info.following.failed) == (served, "broken-3")
        assert "damaged" in (info.following.error or "")
        assert client.predict(png(0)).model == served
    finally:
        promote(store, "shades", served)
    until(lambda: client.info().following.error is None, "the recovery")


def test_a_killed_replica_comes_back_by_itself_and_no_request_fails(
    server: deploy.ServerHandle, client: Client, store: Store
) -> None:
    """The one replica there is: requests under way are sent again, those after them wait for the next one."""
    promote(store, "shades", "inverse-2")
    until(lambda: client.info().model == "inverse-2", "serving inverse-2")
    before = client.info()

    def kill() -> None:
        time.sleep(0.3)
        os.kill(replica_pid("shades"), signal.SIGKILL)
        until(lambda: client.info().replica != before.replica, "a new replica", timeout_s=45)

    answers = under_load(server.url, kill)
    assert {answer.model for _, answer in answers} == {"inverse-2"}
    for level, answer in answers:
        assert answer.label == expected_label("inverse-2", level)


def replica_pid(name: str) -> int:
    """The process of the one replica, among those that this test's Ray started."""
    (pid,) = replica_pids(name)
    return pid


def replica_pids(name: str) -> list[int]:
    return [process.pid for process in serving(f"autovision-{name}:ModelServer")]


def serving(part: str) -> list[psutil.Process]:
    """Processes of replicas on Serve, by a part of their name."""
    return below(f"ServeReplica:{part}")


def below(part: str) -> list[psutil.Process]:
    """Actors that this test's Ray started, by a part of their name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            if f"ray::{part}" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_serve_loses_its_controller_and_what_answers_goes_on_answering(
    server: deploy.ServerHandle, client: Client, store: Store
) -> None:
    promote(store, "shades", "inverse-2")
    until(lambda: client.info().model == "inverse-2", "serving inverse-2")
    before = {process.pid for process in serving("autovision")}
    assert len(before) == 2, "a replica and an edge"

    def known_again() -> bool:
        with suppress(RayError):
            return all(
                each.status is DeploymentStatus.HEALTHY and each.replica_states == {ReplicaState.RUNNING: 1}
                for application in serve.status().applications.values()
                for each in application.deployments.values()
            )
        return False

    def kill() -> None:
        (controller,) = below("ServeController")
        controller.kill()
        until(lambda: {each.pid for each in below("ServeController")} - {controller.pid}, "another one", 45)
        until(known_again, "its knowledge of what runs", timeout_s=45)

    answers = under_load(server.url, kill)
    assert {answer.model for _, answer in answers} == {"inverse-2"}
    assert {process.pid for process in serving("autovision")} == before


def test_a_killed_edge_comes_back_by_itself(server: deploy.ServerHandle, client: Client) -> None:
    (edge,) = serving("autovision-edge")
    children = edge.children()
    edge.kill()
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children), "HAProxy ends with its edge"

    def answers() -> bool:
        try:
            return client.predict(png(255)).label == "dark"
        except ServerUnavailable:
            return False

    until(answers, "an answer", timeout_s=45)


def test_a_second_server_a_port_in_use_and_unknown_names_are_refused(
    server: deploy.ServerHandle, store: Store
) -> None:
    with pytest.raises(Conflict, match="already runs"):
        deploy.start(store.uri, deployment="shades", port=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=rf"port {port} .* in use.*--port"):
            deploy.start(store.uri, deployment="shades", port=port)
    with pytest.raises(NotFound, match=r"'shade'.*did you mean 'shades'"):
        deploy.start(store.uri, deployment="shade", port=0)
    with pytest.raises(NotFound, match=r"'shades-9'.*did you mean 'shades-1'"):
        deploy.start(store.uri, model="shades-9", port=0)


def test_after_a_stop_others_can_be_served(server: deploy.ServerHandle, store: Store) -> None:
    with Client(server.url, retry_for_s=0) as client:
        last = client.predict(png(10))
    server.stop()
    stored = {capture.request_id for capture in captures.read(store, "shades").captures}
    assert last.request_id in stored, "a graceful stop loses no capture"

    with pytest.raises(ServerStartFailed, match="damaged"):
        deploy.start(store.uri, model="broken-3", port=0, load=load)

    with (
        deploy.start(store.uri, model="inverse-2", port=0, load=load) as pinned,
        Client(pinned.url) as client,
    ):
        answer = client.predict(png(255))
        assert (answer.model, answer.label) == ("inverse-2", "dark")
        assert client.info().captures is None
        with pytest.raises(InvalidInput, match="pinned"):
            client.feedback(answer.request_id, "dark")


def test_several_deployments_answer_under_their_names(cluster: None, store: Store) -> None:
    promote(store, "shades", "inverse-2")
    with deploy.start(
        store.uri, deployment="shades", model="shades-1", port=0, load=load, cpus=0.5
    ) as server:
        assert server.urls == {name: f"{server.url}/{name}" for name in ("shades", "shades-1")}
        with Client(server.urls["shades"]) as shades, Client(server.urls["shades-1"]) as pinned:
            assert shades.predict(png(255)).model == "inverse-2"
            assert pinned.predict(png(255)).model == "shades-1"
            assert shades.health().status == "ready"
            assert pinned.info().deployment is None
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:
            listed = http.post("/v2/repository/index").json()
            assert [each["name"] for each in listed] == ["shades", "shades-1"]
            assert http.get("/v2/models/shades-1").json()["versions"] == ["shades-1"]
            assert http.post("/v1/predict", content=png(0)).status_code == 404
            assert http.get("/metrics").text.count('autovision_ready{replica="') == 2
        with pytest.raises(Conflict, match="'shades-1' already runs"):
            deploy.start(store.uri, model="shades-1", port=0, load=load)
        with (
            deploy.start(store.uri, model="inverse-2", port=0, load=load, cpus=0.5) as other,
            Client(other.url) as client,
        ):
            assert client.predict(png(255)).label == "dark"
        with Client(server.urls["shades-1"]) as pinned:
            assert pinned.predict(png(255)).label == "bright", "another server's end is none of its business"


def test_a_model_that_nobody_calls_sleeps_and_wakes(cluster: None, store: Store) -> None:
    scaling = Scaling(least=0, most=1, idle_s=LOOK_BACK_S)
    with (
        deploy.start(store.uri, model="inverse-2", port=0, load=load, scaling=scaling, cpus=0.5) as server,
        Client(server.url, retry_for_s=0, timeout_s=60) as client,
    ):
        assert client.predict(png(255)).label == "dark"
        until(lambda: client.health().status == "asleep", "sleep", timeout_s=60)
        until(lambda: replica_pids("inverse-2") == [], "the end of its process")
        assert client.health().status == "asleep", "asking for health wakes nobody"
        assert client.predict(png(255)).label == "dark"
        assert client.health().status == "ready"


def test_a_network_is_served_by_processes_without_pytorch(cluster: None, store: Store) -> None:
    # One that nobody has made ready here before.
    model_id = f"network-{secrets.token_hex(4)}"
    add_network(store, model_id)
    with (
        deploy.start(store.uri, model=model_id, port=0, cpus=0.5, threads=2, runtime=EVALUATED) as server,
        Client(server.url) as client,
    ):
        answers = [client.predict(png(level)) for level in (0, 255)]
        assert {answer.model for answer in answers} == {model_id}
        assert "libtorch" in mapped(os.getpid()), "this process has built the network"
        (replica,) = replica_pids(model_id)
        assert "libopenvino" in mapped(replica)
        edges = [process.pid for process in serving("autovision-edge")]
        assert edges
        assert [pid for pid in (replica, *edges) if "libtorch" in mapped(pid)] == []


def mapped(pid: int) -> str:
    """The files that a process has in memory."""
    return Path(f"/proc/{pid}/maps").read_text()


def add_network(store: Store, model_id: str) -> None:
    """A model with a real network of some thousand random weights."""
    from autovision.model import backbone, bundle

    config = TrialConfig(backbone="test_resnet", weights="random", resolution=64, taps=3)
    files = {bundle.WEIGHTS_FILE: bundle.weights_of(bundle.build_network(config, len(CLASSES)))}
    shades = version_of(model_id)
    version = shades.with_(
        preprocessing=backbone.preprocessing(config),
        lineage=shades.lineage.with_(backbone="test_resnet", config=config.model_dump(mode="json")),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        size_bytes=sum(map(len, files.values())),
    )
    bundle.publish(store, version, files)


def slow_load(store: Store, model_id: str) -> Any:
    class Slow(Shades):
        def predict(self, images: Sequence[bytes]) -> list[Judged | InvalidImage]:
            time.sleep(0.05 * len(images))
            return super().predict(images)

    return Slow(records.read(store, keys.model(model_id), ModelVersion))


def test_replicas_are_added_while_images_wait(cluster: None, store: Store) -> None:
    with (
        deploy.start(
            store.uri, model="shades-1", port=0, load=slow_load, scaling=Scaling(1, 2), cpus=0.5
        ) as server,
        Client(server.url) as client,
    ):
        assert len(replica_pids("shades-1")) == 1

        def both_answer() -> bool:
            # Each has a name of its own, and the edge sends to the one with less to do.
            return len({client.info().replica for _ in range(4)}) == 2

        answers = under_load(server.url, lambda: until(both_answer, "a second replica", timeout_s=60))
        assert {answer.label for level, answer in answers if level == 255} == {"bright"}


def test_it_answers_over_tls_to_those_who_have_a_token(cluster: None, store: Store, tmp_path: Path) -> None:
    """The last one: from here on the store has a token."""
    made = tokens.create(store, "line-1", [Scope.PREDICT, Scope.ADMIN], AT)
    files = Tls(*self_signed(tmp_path))
    trusted = exactly(files.cert)
    with (
        deploy.start(
            store.uri, model="inverse-2", port=0, load=load, tls=files, limits=Limits(body_timeout_s=1.0)
        ) as server,
        Client(server.url, token=made.secret, tls=trusted) as client,
        Client(server.url, tls=trusted) as stranger,
    ):
        url = httpx.URL(server.url)
        assert url.scheme == "https"
        assert client.predict(png(255)).label == "dark"
        several = client.predict_all([png(255), b"text", png(0)])
        assert [type(each).__name__ for each in several] == ["Answer", "InvalidImage", "Answer"]
        with pytest.raises(NotAllowed, match="HTTP 401"):
            stranger.predict(png(255))
        assert stranger.health().status == "ready"
        http = {"verify": trusted, "trust_env": False, "headers": {"authorization": f"Bearer {made.secret}"}}
        metrics = httpx.get(f"{server.url}/metrics", **http).text
        assert 'arm="stable",kind="ok",model="inverse-2"' in metrics
        model = httpx.get(f"{server.url}/v2/models/inverse-2", **http).json()
        assert model["versions"] == ["inverse-2"]
        with (
            socket.create_connection((url.host, url.port or 0)) as plain,
            trusted.wrap_socket(plain) as slow,
        ):
            head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {made.secret}\r\n"
            slow.sendall(f"{head}Content-Length: 1000\r\n\r\nab".encode())
            slow.settimeout(20)
            assert slow.recv(65536).startswith(b"HTTP/1.1 408 "), "whoever trickles is cut off"
        tokens.revoke(store, made.token.id, AT)

        def refused() -> bool:
            try:
                client.predict(png(255))
            except NotAllowed:
                return True
            return False

        until(refused, "the revocation")
