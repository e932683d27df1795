"""Batches grow under load, lanes wait for no other, neither mixes models, and one bad image fails alone."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import pytest

from autovision.errors import InvalidImage
from autovision.serving.batcher import Batcher, Work
from autovision.serving.problems import NoModel, QueueFull, ShuttingDown
from autovision.serving.turns import Turns


async def _until(condition: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_lone_request_is_answered_at_once(make_predictor: Any, png: Any) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor)
    result = asyncio.run(batcher.predict(png(200)))
    assert (result.model.id, result.prediction.label) == ("m1", "bright")
    assert predictor.batches == [1]
    batcher.close()
    assert not batcher.alive


def test_what_waits_is_batched_up_to_the_limit_and_each_caller_gets_its_own(
    make_predictor: Any, png: Any
) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor, max_batch=16, max_waiting=100)

    async def run() -> list[str]:
        predictor.gate.clear()
        first = asyncio.create_task(batcher.predict(png(0)))
        await _until(predictor.begun.is_set)
        rest = [asyncio.create_task(batcher.predict(png(255 if i % 3 else 0))) for i in range(40)]
        await _until(lambda: batcher.waiting == 40)
        predictor.gate.set()
        return [(await task).prediction.label for task in (first, *rest)]

    labels = asyncio.run(run())
    assert labels == ["dark"] + ["bright" if i % 3 else "dark" for i in range(40)]
    assert predictor.batches == [1, 16, 16, 8]
    batcher.close()


def test_it_counts_what_it_did_and_how_long_images_waited(make_predictor: Any, png: Any) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor)

    async def run() -> None:
        predictor.gate.clear()
        first = asyncio.create_task(batcher.predict(png()))
        await _until(predictor.begun.is_set)
        rest = [asyncio.create_task(batcher.predict(png())) for _ in range(3)]
        await _until(lambda: batcher.waiting == 3)
        await asyncio.sleep(0.05)
        predictor.gate.set()
        await asyncio.gather(first, *rest)

    asyncio.run(run())
    batcher.close()
    work = batcher.work
    assert work.images == 4
    assert work.busy_s >= 0.05
    assert work.waited_s >= 3 * 0.05
    assert work + work == Work(8, 2 * work.busy_s, 2 * work.waited_s)


def test_a_full_queue_refuses_and_the_waiting_are_still_answered(make_predictor: Any, png: Any) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor, max_waiting=3)

    async def run() -> None:
        predictor.gate.clear()
        first = asyncio.create_task(batcher.predict(png()))
        await _until(predictor.begun.is_set)
        waiting = [asyncio.create_task(batcher.predict(png())) for _ in range(3)]
        await _until(lambda: batcher.full)
        with pytest.raises(QueueFull):
            await batcher.predict(png())
        predictor.gate.set()
        for task in (first, *waiting):
            assert (await task).prediction.label == "bright"

    asyncio.run(run())
    batcher.close()


def test_one_image_that_breaks_the_model_fails_alone(make_predictor: Any, png: Any) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor)

    async def run() -> list[Any]:
        predictor.gate.clear()
        first = asyncio.create_task(batcher.predict(png()))
        await _until(predictor.begun.is_set)
        images = [png(200), png(200, size=(1, 1)), b"no image", png(3)]
        tasks = [asyncio.create_task(batcher.predict(image)) for image in images]
        await _until(lambda: batcher.waiting == 4)
        predictor.gate.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    good, broken, undecodable, dark = asyncio.run(run())
    assert good.prediction.label == "bright"
    assert isinstance(broken, ZeroDivisionError)
    assert isinstance(undecodable, InvalidImage)
    assert dark.prediction.label == "dark"
    batcher.close()


def test_a_batch_that_has_begun_ends_on_its_model_and_the_next_uses_the_new_one(
    make_predictor: Any, png: Any
) -> None:
    old, new = make_predictor("old", 0.5), make_predictor("new", 0.9)
    current = [old]
    batcher = Batcher(lambda: current[0])

    async def run() -> tuple[Any, Any]:
        old.gate.clear()
        first = asyncio.create_task(batcher.predict(png(200)))
        await _until(old.begun.is_set)
        current[0] = new
        second = asyncio.create_task(batcher.predict(png(200)))
        old.gate.set()
        return await first, await second

    first, second = asyncio.run(run())
    assert (first.model.id, first.prediction.label) == ("old", "bright")
    assert (second.model.id, second.prediction.label) == ("new", "dark")
    batcher.close()


def test_a_caller_that_went_away_costs_no_prediction(make_predictor: Any, png: Any) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor)

    async def run() -> None:
        predictor.gate.clear()
        first = asyncio.create_task(batcher.predict(png()))
        await _until(predictor.begun.is_set)
        gone, stays = (asyncio.create_task(batcher.predict(png())) for _ in range(2))
        await _until(lambda: batcher.waiting == 2)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        predictor.gate.set()
        await asyncio.gather(first, stays)

    asyncio.run(run())
    assert predictor.batches == [1, 1]
    batcher.close()


def test_closing_answers_what_waits_and_refuses_the_rest(make_predictor: Any, png: Any) -> None:
    predictor = make_predictor()
    batcher = Batcher(lambda: predictor)

    async def run() -> None:
        predictor.gate.clear()
        tasks = [asyncio.create_task(batcher.predict(png()))]
        await _until(predictor.begun.is_set)
        tasks += [asyncio.create_task(batcher.predict(png())) for _ in range(4)]
        await _until(lambda: batcher.waiting == 4)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await _until(lambda: batcher._closed)
        with pytest.raises(ShuttingDown):
            await batcher.predict(png())
        predictor.gate.set()
        assert len(await asyncio.gather(*tasks)) == 5
        await closing

    asyncio.run(run())


def test_no_model_is_an_error_for_each_caller(png: Any) -> None:
    batcher = Batcher(lambda: None)
    with pytest.raises(NoModel):
        asyncio.run(batcher.predict(png()))
    assert batcher.alive
    batcher.close()


def in_lanes(predictor: Any, **more: Any) -> Batcher:
    return Batcher(lambda: predictor, workers=2, turns=Turns(2), **more)


def test_in_lanes_an_image_is_answered_while_another_is_computed(make_in_lanes: Any, png: Any) -> None:
    predictor = make_in_lanes()
    batcher = in_lanes(predictor)

    async def run() -> None:
        predictor.dark_gate.clear()
        slow = asyncio.create_task(batcher.predict(png(0)))
        await _until(lambda: predictor.at_once == 1)
        for _ in range(5):
            assert (await batcher.predict(png(255))).prediction.label == "bright"
        assert not slow.done()
        predictor.dark_gate.set()
        assert (await slow).prediction.label == "dark"

    asyncio.run(run())
    assert predictor.batches == [1] * 6
    assert predictor.widened == [True] + [False] * 5, "all threads may compute an image that is alone"
    batcher.close()


def test_under_load_a_lane_takes_its_share_of_what_waits_but_few(make_in_lanes: Any, png: Any) -> None:
    predictor = make_in_lanes(few=3, most=5)
    batcher = in_lanes(predictor)

    async def run(number: int) -> list[str]:
        predictor.gate.clear()
        first = [asyncio.create_task(batcher.predict(png(0))) for _ in range(2)]
        await _until(lambda: predictor.at_once == 2)
        predictor.batches.clear()
        rest = [asyncio.create_task(batcher.predict(png(255 if i % 3 else 0))) for i in range(number)]
        await _until(lambda: batcher.waiting == number)
        predictor.gate.set()
        return [(await task).prediction.label for task in (*first, *rest)]

    assert asyncio.run(run(9)) == ["dark"] * 2 + ["bright" if i % 3 else "dark" for i in range(9)]
    # Of 9 that wait and two lanes, 3 and 3 are taken, then 2 and 1.
    assert sorted(predictor.batches) == [1, 2, 3, 3]
    assert len(asyncio.run(run(12))) == 14
    # Of 12 each lane can have 5; of the 7 that are left then 3 are taken, and so on.
    assert sorted(predictor.batches) == [1, 1, 2, 3, 5]
    assert predictor.most_at_once == 2
    batcher.close()


def test_a_lane_is_half_of_what_could_be_computed(make_in_lanes: Any, png: Any) -> None:
    predictor = make_in_lanes(asks=False)
    batcher = in_lanes(predictor)

    async def run() -> float:
        predictor.gate.clear()
        begun = perf_counter()
        tasks = [asyncio.create_task(batcher.predict(png())) for _ in range(2)]
        await _until(lambda: predictor.at_once == 2)
        await asyncio.sleep(0.05)
        predictor.gate.set()
        await asyncio.gather(*tasks)
        return perf_counter() - begun

    passed_s = asyncio.run(run())
    batcher.close()
    assert batcher.work.images == 2
    assert 0.05 <= batcher.work.busy_s <= passed_s, (
        "both lanes were busy for 0.05 s, which is no 0.1 s of all"
    )


def test_one_image_that_breaks_the_model_fails_alone_in_a_lane(make_in_lanes: Any, png: Any) -> None:
    predictor = make_in_lanes(few=4)
    batcher = in_lanes(predictor)

    async def run() -> list[Any]:
        predictor.gate.clear()
        first = [asyncio.create_task(batcher.predict(png())) for _ in range(2)]
        await _until(lambda: predictor.at_once == 2)
        images = [png(200), png(200, size=(1, 1)), b"no image", png(3)]
        tasks = [asyncio.create_task(batcher.predict(image)) for image in images]
        await _until(lambda: batcher.waiting == 4)
        predictor.gate.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*tasks, return_exceptions=True)

    good, broken, undecodable, dark = asyncio.run(run())
    assert good.prediction.label == "bright"
    assert isinstance(broken, ZeroDivisionError)
    assert isinstance(undecodable, InvalidImage)
    assert dark.prediction.label == "dark"
    batcher.close()


def test_lanes_that_have_begun_end_on_their_model_and_a_model_in_batches_may_follow(
    make_in_lanes: Any, make_predictor: Any, png: Any
) -> None:
    old, new = make_in_lanes("old"), make_predictor("new", 0.9)
    current: list[Any] = [old]
    batcher = Batcher(lambda: current[0], workers=2, turns=Turns(2))

    async def run() -> list[Any]:
        old.gate.clear()
        begun = [asyncio.create_task(batcher.predict(png(200))) for _ in range(2)]
        await _until(lambda: old.at_once == 2)
        current[0] = new
        waiting = [asyncio.create_task(batcher.predict(png(200))) for _ in range(6)]
        await _until(lambda: batcher.waiting == 6)
        old.gate.set()
        answers = [await task for task in (*begun, *waiting)]
        current[0] = old
        return [*answers, await batcher.predict(png(200))]

    answers = asyncio.run(run())
    said = [(answer.model.id, answer.prediction.label) for answer in answers]
    assert said == [("old", "bright")] * 2 + [("new", "dark")] * 6 + [("old", "bright")]
    assert old.batches == [1, 1, 1]
    assert sum(new.batches) == 6
    batcher.close()


def test_closing_answers_what_waits_for_a_lane(make_in_lanes: Any, png: Any) -> None:
    predictor = make_in_lanes()
    batcher = in_lanes(predictor)

    async def run() -> None:
        predictor.gate.clear()
        tasks = [asyncio.create_task(batcher.predict(png())) for _ in range(7)]
        await _until(lambda: predictor.at_once == 2)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        await _until(lambda: batcher._closed)
        predictor.gate.set()
        assert len(await asyncio.gather(*tasks)) == 7
        await closing

    asyncio.run(run())
    assert not any(worker.is_alive() for worker in batcher._workers)


def test_whoever_yields_computes_on_one_thread_and_leaves_the_other_lanes_to_callers(
    make_in_lanes: Any, png: Any
) -> None:
    turns, stable, shadow = Turns(2), make_in_lanes("stable"), make_in_lanes("shadow")
    callers = Batcher(lambda: stable, workers=2, turns=turns)
    copies = Batcher(lambda: shadow, workers=2, turns=turns, yields=lambda: True)

    async def run() -> None:
        shadow.gate.clear()
        copy = asyncio.create_task(copies.predict(png()))
        await _until(lambda: shadow.at_once == 1)
        assert (await callers.predict(png())).model.id == "stable"
        assert not copy.done()
        shadow.gate.set()
        assert (await copy).model.id == "shadow"

    asyncio.run(run())
    assert shadow.widened == [False]
    callers.close()
    copies.close()
