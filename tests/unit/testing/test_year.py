"""A short year on made-up embeddings: the real loop turns, and what breaks is overcome."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

import numpy as np
import pytest

from autovision.errors import InvalidInput, StoreUnavailable
from autovision.records.deployments import DecisionKind, RetrainingPolicy
from autovision.registry import deployments
from autovision.store import MemoryStore
from autovision.testing.year import (
    JUDGED_ONCE,
    KINDS,
    POLICIES,
    Days,
    Images,
    People,
    Plan,
    Tally,
    World,
    Year,
    tally,
)
from autovision.testing.year.loop import DEPLOYMENT
from autovision.testing.year.models import PENALTIES, Answering
from autovision.testing.year.outages import OutageStore
from autovision.testing.year.world import CLASSES, START

PLAN = Plan(
    days=30,
    glare_from=0,
    sudden=6,
    slow=Days(14, 20),
    store_down=Days(17, 19),
    ray_down=Days(12, 14),
    controller_down=Days(24, 27),
)
QUICK = RetrainingPolicy(window=50, min_labels=20, volume_labels=60)


def made_up(n: int = 400, dim: int = 12) -> dict[str, Images]:
    """Two classes apart along one direction, and for poly cells along another one, which one model can learn both."""
    rng = np.random.default_rng(0)
    moved = dict(zip(KINDS, (0.0, 0.5, 0.8, 1.5, 1.8), strict=True))
    found = {}
    for kind in KINDS:
        poly = kind.startswith("poly")
        truth = rng.integers(0, 2, n)
        embeddings = rng.normal(size=(n, dim))
        embeddings[:, 4:8] += moved[kind]
        embeddings[:, 1 if poly else 0] += 4 * (truth - 0.5)
        found[kind] = Images(embeddings, truth, np.arange(n) + (n if poly else 0))
    return found


def world(plan: Plan = PLAN) -> World:
    return World(made_up(), plan, first=120)


@cache
def lived(name: str) -> tuple[Year, Tally]:
    policy = QUICK if name == "quick" else POLICIES[name].with_(window=50)
    people = People(share=0.3, median_days=1.0)
    year = Year(world(), policy, people, per_day=50, labels_every=1, later_looks=name not in JUDGED_ONCE)
    year.live()
    return year, tally(year)


# ---------------------------------------------------------------------------------------------------- parts


def test_the_shares_of_a_day_sum_to_one_and_change_with_the_plan() -> None:
    plan = Plan()
    for day in range(plan.days):
        assert sum(plan.shares(day).values()) == pytest.approx(1.0)
    assert plan.shares(0) == {name: float(name == "mono") for name in KINDS}
    before, after = plan.shares(plan.sudden - 1), plan.shares(plan.sudden)
    assert (before["poly"], after["poly"]) == (0.0, plan.poly)
    assert plan.shares(plan.slow.last)["poly-blur"] == pytest.approx(plan.poly * plan.blur)


def test_what_the_judge_sees_is_never_sent_and_the_same_object_is_the_same_image() -> None:
    here = world()
    held = {int(cell) for images in here.held_out.values() for cell in images.cells}
    sent = {int(cell) for images in here.sent.values() for cell in images.cells}
    own = {int(cell) for cell in here.begins.cells}
    assert len(own) == 120 and not held & sent and not held & own and not sent & own
    images = [image for day in range(25) for image in here.arrivals(day, 100)]
    assert {image.kind for image in images} == set(KINDS)
    assert {image.digest for image in images} <= set(here.by_digest)
    assert len(here.by_digest) < len(images), "some came again"
    once, again = ([image.digest for image in world().arrivals(3, 20)] for _ in range(2))
    assert once == again


def test_too_few_images_to_begin_with_are_refused() -> None:
    with pytest.raises(InvalidInput, match="too few to begin with 300"):
        World(made_up(), PLAN)
    with pytest.raises(InvalidInput, match="no images of poly"):
        World({name: images for name, images in made_up().items() if name != "poly"}, PLAN, first=120)


def test_people_are_late_and_sometimes_wrong_and_say_each_word_once() -> None:
    people = People(share=0.5, wrong=0.1, twice=0.2, median_days=2.0)
    for number in range(2000):
        people.see(f"r{number}", CLASSES[0], START)
    assert people.due(START) == []
    early = people.due(START + timedelta(days=2))
    rest = people.due(START + timedelta(days=1000))
    words = [*early, *rest]
    assert 1000 < len(words) < 1400
    assert 0.4 < len(early) / len(words) < 0.6
    wrong = sum(word.label != CLASSES[0] for word in words) / len(words)
    assert 0.06 < wrong < 0.14
    assert len({(word.request_id, word.annotator) for word in words}) == len(words)
    assert people.due(START + timedelta(days=1000)) == []
    people.again(words[:2], START + timedelta(days=1001))
    assert [word.request_id for word in people.due(START + timedelta(days=1001))] == [
        word.request_id for word in words[:2]
    ]


def test_a_store_that_is_down_can_be_read_and_lists_as_another_one_does() -> None:
    plain, store = MemoryStore(), OutageStore()
    rng = np.random.default_rng(0)
    for number in rng.permutation(200):
        for each in (plain, store):
            each.put_new(f"{'ab'[number % 2]}/{number % 7}/{number}", b"x")
    for each in (plain, store):
        each.delete("a/0/0")
    for prefix in ("", "a/", "a/1", "b/3/", "c/"):
        assert list(store.list(prefix)) == list(plain.list(prefix))
    store.down = True
    etag = store.get("a/2/2").etag
    writes = (
        lambda: store.put_new("c/1", b""),
        lambda: store.put_if("a/2/2", b"y", etag),
        lambda: store.put_immutable("c/2", b""),
        lambda: store.delete("a/2/2"),
    )
    for write in writes:
        with pytest.raises(StoreUnavailable):
            write()
    assert store.refused == len(writes) and store.get("a/2/2").data == b"x"
    store.down = False
    store.put_if("a/2/2", b"y", etag)
    assert store.get("a/2/2").data == b"y"


def test_a_model_is_the_same_when_it_is_read_back() -> None:
    images = made_up()["mono"]
    model = Answering.fit(images.embeddings, images.truth, PENALTIES[-1])
    again = Answering.from_bytes(model.to_bytes())
    assert np.array_equal(model.probabilities(images.embeddings), again.probabilities(images.embeddings))
    assert model.accuracy(images.embeddings, images.truth) > 0.9


# --------------------------------------------------------------------------------------------------- years


def test_without_retraining_the_year_costs_nothing_and_the_shift_stays() -> None:
    year, found = lived("never")
    assert (found.searches, found.spent_s, found.promoted, found.slots) == (0, 0.0, 0, None)
    assert len(set(year.served)) == 1
    assert min(found.accuracy[PLAN.sudden :]) < found.accuracy[0] - 0.1
    assert found.alarms > 0, "drift is told, whether anybody acts on it or not"


def test_the_loop_finds_the_shift_and_recovers_from_it() -> None:
    _, found = lived("quick")
    _, never = lived("never")
    assert found.searches > 0 and found.promoted > 0
    assert found.mean > never.mean
    assert found.accuracy[-1] > never.accuracy[-1] + 0.05
    assert (found.most_at_once, found.overlaps) == (1, 0)
    assert found.spent_s <= found.searches * QUICK.budget_s + 1


def test_each_slot_is_dealt_with_once_or_overtaken_in_an_outage() -> None:
    _, found = lived("nightly")
    slots = found.slots
    assert slots is not None
    assert (slots.all, slots.more, slots.unexplained) == (PLAN.days, 0, 0)
    assert slots.once + slots.overtaken == slots.all
    assert slots.overtaken >= PLAN.controller_down.last - PLAN.controller_down.first - 1
    assert found.failed > 0, "searches fail while Ray is gone"
    assert (found.most_at_once, found.overlaps) == (1, 0)


def test_refused_challengers_are_looked_at_again_unless_they_are_judged_once() -> None:
    def looks(name: str) -> int:
        year, _ = lived(name)
        return sum("later" in each.numbers for each in deployments.decisions(year.store, DEPLOYMENT))

    assert looks("nightly") > 0
    assert [looks(name) for name in JUDGED_ONCE] == [0]


def test_what_breaks_is_overcome() -> None:
    year, found = lived("nightly")
    assert found.lost == 50 * (PLAN.store_down.last - PLAN.store_down.first)
    assert year.store.refused > 0
    late = [
        decision
        for decision in deployments.decisions(year.store, DEPLOYMENT)
        if decision.kind is DecisionKind.RETRAIN
        and decision.accepted
        and decision.created_at > START + timedelta(days=PLAN.controller_down.last)
    ]
    assert late, "it goes on after the last outage"
    assert not [run for run in year.lab.runs if run.began_at.day in (18, 19) and run.began_at.month == 1]
