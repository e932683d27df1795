"""Every limit refuses with a clear error, and gives back what was held; the others are served meanwhile."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from autovision.errors import InvalidInput
from autovision.records.tokens import Scope
from autovision.serving.auth import TokenBook
from autovision.serving.limits import Gate, Limits
from autovision.serving.problems import QueueFull, TooManyAtOnce, TooManyImages
from autovision.store import tokens
from tests.unit.serving.worlds import World, address, check_problem, until


@pytest.mark.parametrize("field", ["max_images", "body_timeout_s", "deadline_s", "max_held_bytes"])
def test_a_limit_is_above_zero(field: str) -> None:
    with pytest.raises(InvalidInput, match=f"{field} is 0"):
        Limits(**{field: 0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["max_image=3"], "did you mean 'max_images'"),
        (["max_images"], "give NAME=NUMBER"),
        (["max_images=3", "max_images=4"], "max_images is given twice"),
        (["max_images=0"], "max_images is 0; use a number above 0"),
        (["max_images=2.5"], "a whole number"),
        (["deadline_s=nan"], "deadline_s is nan"),
    ],
)
def test_a_limit_that_is_none_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Limits.parse(settings)


def test_limits_are_read_from_text() -> None:
    assert Limits.parse(["max_images=8", "deadline_s=0.5"]) == Limits(max_images=8, deadline_s=0.5)


def test_what_a_visit_holds_is_given_back_when_it_ends() -> None:
    gate = Gate(Limits(max_images=3, max_held_bytes=10, max_images_per_token=4))
    with gate.visit("a") as first, gate.visit("a") as second, gate.visit("b") as other:
        first.hold_images(3)
        with pytest.raises(TooManyImages, match="4 images, and 3"):
            first.hold_images(1)
        second.hold_images(1)
        with pytest.raises(TooManyAtOnce):
            second.hold_images(1)
        other.hold_images(3)
        first.hold_bytes(6)
        other.hold_bytes(4)
        with pytest.raises(QueueFull, match="as many bytes"):
            other.hold_bytes(1)
    assert (gate.held_bytes, dict(gate.images)) == (0, {})
    with gate.visit(None) as visit:
        visit.hold_images(3)
        assert dict(gate.images) == {}


def test_a_request_that_the_queue_never_has_room_for_is_not_told_to_come_back() -> None:
    with Gate(Limits(max_images=8, max_waiting=3)).visit(None) as visit:
        visit.hold_images(3)
        with pytest.raises(TooManyImages, match="4 images, and 3"):
            visit.hold_images(1)


def test_an_error_gives_everything_back() -> None:
    gate = Gate(Limits())
    with pytest.raises(ZeroDivisionError), gate.visit("a") as visit:
        visit.hold_bytes(5)
        visit.hold_images(2)
        raise ZeroDivisionError
    assert (gate.held_bytes, dict(gate.images)) == (0, {})


@pytest.fixture
def limited(world: World, serve: Callable[..., str]) -> Iterator[Callable[..., httpx.Client]]:
    """Start the world's server with limits of its own; a client of it."""
    with ExitStack() as stack:

        def start(book: TokenBook | None = None, **limits: Any) -> httpx.Client:
            url = serve(world, limits=Limits(**limits), book=book)
            world.promote("m1")
            return stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=20))

        yield start


def test_an_answer_that_takes_too_long_is_504_and_costs_nothing_more(
    limited: Callable[..., httpx.Client], world: World, png: Any
) -> None:
    http = limited(deadline_s=0.2)
    predictor = world.predictors["m1"]
    predictor.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        late = [pool.submit(http.post, "/v1/predict", content=png()) for _ in range(3)]
        for future in late:
            check_problem(future.result(), 504, "deadline", "0.2 s")
    files = [("image", ("x.png", png()))] * 2
    check_problem(http.post("/v1/predict", files=files), 504, "deadline")
    predictor.gate.set()
    until(lambda: world.engine.info().waiting == 0)
    assert http.post("/v1/predict", content=png()).status_code == 200
    assert world.engine.info().errors == {"deadline": 4}
    assert sum(predictor.batches) <= 4, "those that nobody waits for any more are not predicted"


def receive_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    connection.settimeout(10)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_client_that_trickles_its_body_is_cut_off_and_others_are_served(
    limited: Callable[..., httpx.Client], world: World, png: Any
) -> None:
    http = limited(body_timeout_s=0.3)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address(str(http.base_url)))) for _ in range(20)]
        for connection in slow:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab")
        assert http.post("/v1/predict", content=png()).status_code == 200
        for connection in slow:
            answer = receive_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 ") and b"urn:autovision:problem:slow-body" in answer
    assert world.engine.info().errors == {"slow-body": 20}


def test_bodies_that_are_being_read_hold_no_more_than_they_may_together(
    limited: Callable[..., httpx.Client], world: World, png: Any
) -> None:
    http = limited(max_held_bytes=100_000)
    url = str(http.base_url)
    with socket.create_connection(address(url)) as hoarder:
        hoarder.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n" + bytes(99_000)
        )

        def refused() -> bool:
            response = http.post("/v1/predict", content=png() + bytes(20_000))
            if response.status_code == 200:
                return False
            check_problem(response, 503, "queue-full", "as many bytes")
            assert response.headers["retry-after"] == "1"
            return True

        until(refused)
        assert http.post("/v1/predict", content=png()).status_code == 200
    until(lambda: http.post("/v1/predict", content=png() + bytes(20_000)).status_code == 200)


def test_one_caller_may_have_no_more_than_its_share(
    limited: Callable[..., httpx.Client], world: World, clock: Any, png: Any
) -> None:
    greedy, modest = (tokens.create(world.store, name, [Scope.PREDICT], clock.at) for name in "ab")
    http = limited(TokenBook(world.store, clock=clock), max_images_per_token=2)
    predictor = world.predictors["m1"]
    predictor.gate.clear()

    def ask(token: str, images: int = 1) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        if images == 1:
            return http.post("/v1/predict", content=png(), headers=headers)
        return http.post("/v1/predict", files=[("i", ("x", png()))] * images, headers=headers)

    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(ask, greedy.secret) for _ in range(2)]
        until(lambda: world.engine.info().waiting + sum(predictor.batches) == 2)
        response = ask(greedy.secret)
        check_problem(response, 429, "too-many-at-once")
        assert response.headers["retry-after"] == "1"
        check_problem(ask(modest.secret, 3), 413, "too-many-images", "3 images, and 2")
        other = pool.submit(ask, modest.secret)
        predictor.gate.set()
        assert [future.result().status_code for future in (*held, other)] == [200] * 3
    assert ask(greedy.secret, 2).status_code == 200


IDLE = 2000


def test_idle_connections_keep_nobody_out(http: httpx.Client, url: str, png: Any) -> None:
    """Some say nothing, some stop in the middle of their headers, some in their body."""
    enough = 2 * IDLE + 256  # both ends are in this process
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < enough:
        pytest.skip(f"this user may open {hard} files, and {enough} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    begun = (
        b"",
        b"POST /v1/predict HTT",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx",
    )
    try:
        with ExitStack() as stack:
            for number in range(IDLE):
                connection = stack.enter_context(socket.create_connection(address(url), timeout=20))
                connection.sendall(begun[number % 3])
                if number % 500 == 499:
                    assert http.post("/v1/predict", content=png()).status_code == 200
            with httpx.Client(base_url=url, trust_env=False, timeout=20) as newcomer:
                assert newcomer.post("/v1/predict", content=png()).status_code == 200
                assert newcomer.get("/v1/model").json()["waiting"] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
