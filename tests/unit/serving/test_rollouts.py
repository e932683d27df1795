"""An engine during a rollout: who answers, what is counted, what is captured, and that no caller pays for it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import pytest

from autovision.errors import InvalidImage, StoreUnavailable
from autovision.records.deployments import Capture, CapturePolicy, Deployment
from autovision.records.rollouts import ReplicaCounts, Rollout, RolloutPolicy, Stage
from autovision.serving.engine import Engine, EngineConfig, answer_of
from autovision.serving.limits import Limits
from autovision.serving.predicting import Input
from autovision.serving.schema import Answer
from autovision.serving.server import Identity, ModelServer
from autovision.store import MemoryStore, captures, keys, open_store, records
from tests.unit.serving.conftest import Judged

POLICY = RolloutPolicy(shadow_s=1, canary=(0.5,))
SHADOW, CANARY = 0, 1


class Breakable(MemoryStore):
    """A store that can be taken away."""

    away = False

    def put_new(self, key: str, data: bytes) -> str:
        if self.away:
            raise StoreUnavailable("the disk is gone; bring it back")
        return super().put_new(key, data)


class World:
    """An engine that follows `shades`: the champion m1 calls half-bright images bright, the challenger m2 dark."""

    def __init__(self, make_predictor: Any, clock: Any) -> None:
        self.store = Breakable()
        self.clock = clock
        self.predictors = {"m1": make_predictor("m1", 0.5), "m2": make_predictor("m2", 0.9)}
        self.loads: list[str] = []
        record = Deployment(
            name="shades", dataset="shades", model="m1", space={}, created_at=clock.at, updated_at=clock.at
        )
        records.create(self.store, keys.deployment("shades"), record)
        config = EngineConfig(
            deployment="shades", poll_s=0.01, tally_s=0.02, patience_s=0.5, max_shadow_waiting=2
        )
        self.engine = Engine(config, self.store, self.load, replica="replica-1")
        self.engine.start()
        until(lambda: self.engine.info().model == "m1")

    def load(self, store: Any, model: str) -> Any:
        self.loads.append(model)
        return self.predictors[model]

    def change(self, **changes: Any) -> None:
        records.update(
            self.store, keys.deployment("shades"), Deployment, lambda record: record.with_(**changes)
        )

    def begin(self, at: int) -> None:
        """A rollout of m2 that is in a step."""
        rollout = Rollout(
            id=f"r{at}",
            model="m2",
            steps=POLICY.steps(),
            at=at,
            false_alarm=0.01,
            error_margin=0.01,
            latency_ratio=2,
            began_at=self.clock.at,
            step_began_at=self.clock.at,
        )
        self.change(rollout=rollout)
        until(lambda: self.engine.info().challenger == "m2")

    async def ask(self, image: Input, key: str | None = None) -> Answer:
        return answer_of(await self.engine.ask(image, {}, self.clock(), perf_counter(), key))

    def answers(self, image: Input, number: int) -> list[Answer]:
        """Those of as many callers with keys, one after the other."""

        async def run() -> list[Answer]:
            found = []
            for each in range(number):
                found.append(await self.ask(image, f"caller-{each}"))
                await self.engine.drain()  # there is room for two copies
            return found

        return asyncio.run(run())

    def counts(self, at: int, enough: Callable[[ReplicaCounts], bool]) -> ReplicaCounts:
        """What the replica has written, once it is enough."""
        found: list[ReplicaCounts] = []

        def look() -> bool:
            found[:] = records.read_all(self.store, keys.rollout_counts("shades", f"r{at}"), ReplicaCounts)
            return bool(found) and enough(found[0])

        until(look)
        return found[0]

    def captured(self) -> tuple[Capture, ...]:
        assert self.engine.flush(5)
        return captures.read(self.store, "shades").captures


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def world(make_predictor: Any, clock: Any) -> Iterator[World]:
    world = World(make_predictor, clock)
    yield world
    world.engine.close()


def test_a_canary_answers_its_share_of_the_callers_who_keep_their_model(world: World, png: Any) -> None:
    world.begin(CANARY)
    first, again = ([answer.model for answer in world.answers(png(180), 60)] for _ in range(2))
    assert first == again and 15 <= first.count("m2") <= 45
    counts = world.counts(CANARY, lambda c: c.challenger.answered + c.stable.answered == 120)
    assert counts.challenger.answered == 2 * first.count("m2")
    assert sum(counts.challenger.latency) == counts.challenger.answered
    assert (counts.replica, counts.challenger.failed, counts.stable.failed) == ("replica-1", 0, 0)
    assert {c.label for c in world.captured() if c.model == "m2"} == {"dark"}
    info = world.engine.info()
    assert (info.model, info.challenger, info.stage, info.share) == ("m1", "m2", Stage.CANARY, 0.5)


def test_pixels_for_the_champion_go_to_a_canary_only_where_it_wants_the_same(world: World) -> None:
    world.begin(CANARY)
    said = Judged("dark", {"bright": 0.25, "dark": 0.75}, np.zeros(2, np.float32))
    for predictor in world.predictors.values():
        predictor._judge = lambda pixels: said
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert {answer.model for answer in world.answers(pixels, 20)} == {"m1", "m2"}
    challenger = world.predictors["m2"]
    prep = challenger.model.preprocessing
    challenger.model = challenger.model.with_(preprocessing=prep.with_(mean=(0.5, 0.5, 0.5)))
    assert {answer.model for answer in world.answers(pixels, 20)} == {"m1", "m2"}, (
        "that is the network's part"
    )
    challenger.model = challenger.model.with_(preprocessing=prep.with_(height=16, width=16))
    assert {answer.model for answer in world.answers(pixels, 20)} == {"m1"}


def test_where_the_canary_fails_the_champion_answers_and_it_is_counted(world: World, png: Any) -> None:
    world.begin(CANARY)
    world.predictors["m2"].predict = _broken
    answers = world.answers(png(180), 40)
    assert {answer.model for answer in answers} == {"m1"}
    counts = world.counts(CANARY, lambda c: c.stable.answered == 40)
    assert 10 <= counts.challenger.failed <= 30 and counts.challenger.answered == 0


def test_a_canary_that_hangs_costs_a_caller_no_more_than_the_patience(world: World, png: Any) -> None:
    world.begin(CANARY)
    key = next(k for k in map(str, range(99)) if world.engine._now.arms.is_canary(k))
    world.predictors["m2"].gate.clear()
    answer = asyncio.run(asyncio.wait_for(world.ask(png(180), key), 5))
    assert answer.model == "m1"
    world.predictors["m2"].gate.set()
    assert world.counts(CANARY, lambda c: c.challenger.failed == 1 and c.stable.answered == 1)


def test_a_canary_that_hangs_leaves_the_champion_time_before_the_deadline(
    make_predictor: Any, clock: Any, png: Any
) -> None:
    uri = f"memory://{secrets.token_hex(8)}"
    predictors = {"m1": make_predictor("m1", 0.5), "m2": make_predictor("m2", 0.9)}
    rollout = Rollout(
        id="r",
        model="m2",
        steps=RolloutPolicy(canary=(0.999999,)).steps(),
        false_alarm=0.01,
        error_margin=0.01,
        latency_ratio=2,
        began_at=clock.at,
        step_began_at=clock.at,
    )
    record = Deployment(
        name="shades", dataset="shades", model="m1", space={}, rollout=rollout, created_at=clock.at, updated_at=clock.at
    )  # fmt: skip
    records.create(open_store(uri), keys.deployment("shades"), record)
    config, limits = EngineConfig(deployment="shades", poll_s=0.01), Limits(deadline_s=4.0)
    server = ModelServer(uri, config, lambda store, model: predictors[model], lambda: Identity("r"), limits)
    until(lambda: server.address() is not None and server._engine.info().challenger == "m2")
    try:
        at = server.address()
        assert at is not None
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=at.socket), base_url="http://r", timeout=20
        ) as http:
            assert http.post("/v1/predict", content=png(180)).json()["model"] == "m2"
            predictors["m2"].gate.clear()
            assert http.post("/v1/predict", content=png(180)).json()["model"] == "m1"
            predictors["m2"].gate.set()
    finally:
        server._listener.close()


def test_an_image_that_is_none_is_nobodys_failure(world: World) -> None:
    world.begin(CANARY)

    async def run() -> None:
        for number in range(20):
            with pytest.raises(InvalidImage):
                await world.ask(b"no image", f"caller-{number}")

    asyncio.run(run())
    counts = world.counts(CANARY, lambda c: True)
    assert (counts.challenger.failed, counts.stable.failed, counts.stable.answered) == (0, 0, 0)


def test_a_shadow_is_compared_and_never_returned(world: World, png: Any) -> None:
    world.begin(SHADOW)
    answers = world.answers(png(180), 8) + world.answers(png(250), 4)
    assert {(answer.model, answer.label) for answer in answers} == {("m1", "bright")}
    counts = world.counts(SHADOW, lambda c: c.compared == 12)
    assert (counts.agreed, counts.challenger.answered, counts.stable.answered) == (4, 12, 12)
    seen = world.captured()
    assert len(seen) == 12
    assert all(c.model == "m1" and c.shadow is not None and c.shadow.model == "m2" for c in seen)
    assert sorted(c.shadow.label for c in seen if c.shadow) == ["bright"] * 4 + ["dark"] * 8


def test_a_slow_shadow_delays_nobody_and_what_has_no_room_is_counted(world: World, png: Any) -> None:
    world.begin(SHADOW)
    shadow = world.predictors["m2"]
    shadow.gate.clear()

    async def run() -> list[Answer]:
        found = []
        for number in range(10):
            found.append(await asyncio.wait_for(world.ask(png(180), f"caller-{number}"), 0.4))
            await asyncio.sleep(0.01)
        shadow.gate.set()
        await world.engine.drain()
        return found

    answers = asyncio.run(run())
    assert len(answers) == 10
    counts = world.counts(SHADOW, lambda c: c.stable.answered == 10 and c.dropped > 0)
    assert counts.dropped >= 6, "one is being judged, and two wait"
    until(lambda: len(world.captured()) == 10)


def test_a_shadow_that_fails_is_counted_and_the_request_is_captured_without_it(
    world: World, png: Any
) -> None:
    world.begin(SHADOW)
    world.predictors["m2"].predict = _broken
    world.answers(png(180), 6)
    assert world.counts(SHADOW, lambda c: c.challenger.failed == 6).compared == 0
    assert [c.shadow for c in world.captured()] == [None] * 6


@pytest.mark.parametrize("at", [None, SHADOW])
def test_a_share_of_the_requests_is_kept_and_without_images_if_so_wanted(
    world: World, png: Any, at: int | None
) -> None:
    if at is not None:
        world.begin(at)
    world.change(capture_policy=CapturePolicy(share=0.5, pixels=False))
    until(lambda: not world.engine._now.arms.captures.pixels)
    world.answers(png(180), 60)
    seen = world.captured()
    assert 15 <= len(seen) <= 45
    assert not any(capture.pixels for capture in seen)
    assert all((capture.shadow is not None) == (at is not None) for capture in seen)
    assert not any(captures.has_image(world.store, capture) for capture in seen)
    assert list(world.store.list(keys.captured_images("shades"))) == []
    world.change(capture_policy=CapturePolicy())
    until(lambda: world.engine._now.arms.captures.pixels)
    world.answers(png(181), 10)
    kept = [capture for capture in world.captured() if capture.pixels]
    assert len(kept) == 10 and captures.read_image(world.store, kept[0]) == png(181)


def test_a_challenger_that_becomes_champion_answers_without_being_loaded_again(
    world: World, png: Any
) -> None:
    world.begin(CANARY)
    world.change(model="m2", rollout=None)
    until(lambda: world.engine.info().model == "m2")
    assert {answer.model for answer in world.answers(png(180), 10)} == {"m2"}
    assert (world.loads, world.engine.info().swaps, world.engine.info().challenger) == (["m1", "m2"], 1, None)
    world.change(model="m1")
    until(lambda: world.engine.info().model == "m1")
    assert world.loads == ["m1", "m2"], "a rollback needs not wait either"


def test_counts_of_a_rollout_survive_an_outage_of_the_store(world: World, png: Any) -> None:
    world.begin(CANARY)
    world.store.away = True
    world.answers(png(180), 10)
    time.sleep(0.1)
    world.store.away = False
    assert world.counts(CANARY, lambda c: c.stable.answered + c.challenger.answered == 10)


def test_a_challenger_that_cannot_be_loaded_is_told_to_whoever_decides(
    make_predictor: Any, clock: Any, png: Any
) -> None:
    world = World(make_predictor, clock)
    del world.predictors["m2"]
    world.engine._follower._clock = lambda: clock.at
    rollout = Rollout(
        id="r0",
        model="m2",
        steps=POLICY.steps(),
        false_alarm=0.01,
        error_margin=0.01,
        latency_ratio=2,
        began_at=clock.at,
        step_began_at=clock.at,
    )
    world.change(rollout=rollout)
    for attempt in range(1, 4):
        until(lambda attempt=attempt: attempts(world, "m2") == attempt)
        clock.at = clock.at.replace(minute=clock.at.minute + 1)
    assert "m2" in str(world.counts(0, lambda c: c.unloadable is not None).unloadable)
    assert {answer.model for answer in world.answers(png(180), 5)} == {"m1"}
    world.engine.close()


def attempts(world: World, model: str) -> int:
    """How often a model failed to load in a row."""
    failure = world.engine._follower._failures.get(model)
    return failure.attempts if failure else 0


def _broken(images: Any) -> Any:
    raise ZeroDivisionError("the model is broken")
