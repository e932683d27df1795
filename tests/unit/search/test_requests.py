"""Searches as records."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from autovision import AutoVision
from autovision.dataset.importer import SourceImage, import_images
from autovision.decisions import Measure
from autovision.errors import Conflict, InvalidInput, NotFound, UnknownBackbone
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.searches import SearchRequest, SearchStatus
from autovision.records.trials import TrialResult
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.search.extending import extend
from autovision.space import Choice, Float, Space
from autovision.space.named import backbones_of
from autovision.store import MemoryStore, keys, lease, records

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


def request_of(store: MemoryStore, tiny: History, **options: Any) -> SearchRequest:
    return requests.make_request(store, "colours", tiny.space, **{"budget_s": 60.0, **options})


def test_a_request_names_exactly_what_it_searches_on(store: MemoryStore, tiny: History) -> None:
    latest, first = (
        request_of(store, tiny),
        requests.make_request(store, "colours@1", tiny.space, budget_s=60.0),
    )
    assert (latest.dataset_version, latest.dataset_digest) == (2, tiny.versions[1].digest)
    assert (first.dataset_version, first.dataset_digest) == (1, tiny.versions[0].digest)
    assert Space.from_json(latest.space) == tiny.space
    assert latest.id != first.id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_s": 0.0}, "budget of 0 s: .* --budget-s 120"),
        ({"budget_s": -3.0}, "budget of -3 s"),
        ({"budget_s": float("inf")}, "budget of inf s"),
        ({"budget_s": float("nan")}, "budget of nan s"),
        ({"max_trials": 0}, "max_trials=0"),
        ({"max_latency_ms": 0.0}, "max_latency_ms=0: a limit is a finite number above 0"),
        ({"max_size_mb": -1.0}, "max_size_mb=-1: a limit is a finite number above 0"),
        ({"max_memory_mb": float("inf")}, "max_memory_mb=inf: a limit is a finite number above 0"),
        (
            {"max_latency_ms": 9.0, "runtime": "openvino"},
            "no runtime 'openvino'; use one of evaluated, openvino-f32",
        ),
        (
            {"max_latency_ms": 9.0, "runtime": "auto"},
            "'auto' is chosen, or made, for a model .*evaluated, open",
        ),
        (
            {"max_latency_ms": 9.0, "runtime": "openvino-int8"},
            "'openvino-int8' is chosen, or made, for a model",
        ),
        (
            {"max_size_mb": 9.0, "runtime": "eager-f32"},
            "the search looks at neither; give it --max-latency-ms",
        ),
        ({"workers_per_trial": 0}, "workers_per_trial=0: a trial needs at least one worker"),
        ({"patience_s": 0.0}, "patience_s=0: it has to be a finite number above 0"),
        ({"max_cost": float("inf")}, "max_cost=inf: it has to be a finite number above 0"),
        ({"max_cost": 3.0}, "max_cost=3: nothing tells what the cluster costs"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"metric": "recall@precision=2"}, "above 0 and at most 1"),
        ({"metric": "neg_mean_cost"}, "needs costs"),
        ({"costs": {"red": {"blue": 1.0}}}, "'red' where 'blue' is true; add it"),
        ({"costs": {"red": {"blue": 1.0}, "blue": {"red": 2.0}}, "metric": "f1"}, "the metric is 'f1'"),
    ],
)
def test_what_cannot_be_searched_with_is_refused(
    store: MemoryStore, tiny: History, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        request_of(store, tiny, **options)
    with pytest.raises(NotFound, match="did you mean 'colours'"):
        requests.make_request(store, "colour", tiny.space, budget_s=60.0)


def test_a_runtime_is_part_of_the_request_if_it_is_another_one(store: MemoryStore, tiny: History) -> None:
    plain = request_of(store, tiny, max_latency_ms=9.0)
    assert request_of(store, tiny, max_latency_ms=9.0, runtime="evaluated").id == plain.id
    assert request_of(store, tiny, max_latency_ms=9.0, runtime="eager-f32").id != plain.id
    assert request_of(store, tiny, objectives=("memory_mb",), runtime="eager-f32").runtime == "eager-f32"


def test_an_unknown_backbone_is_refused_wherever_it_stands(store: MemoryStore) -> None:
    class Chosen(Space):
        backbone = Choice("resnet18", "resnet81")

    class Fixed(Space):
        backbone = "resnet81"
        lr = Float(1e-3, 1e-2)

    for space in (Chosen(), Fixed()):
        with pytest.raises(UnknownBackbone, match=r"resnet81.*did you mean 'resnet18'"):
            requests.make_request(store, "colours", space, budget_s=60.0)


def test_the_backbones_of_a_space() -> None:
    class Unnamed(Space):
        lr = Float(1e-3, 1e-2)

    assert backbones_of(Unnamed()) == ["tf_efficientnet_lite0"]


def test_a_data_set_without_a_test_split_is_refused(
    paint_images: Callable[..., list[Path]], tmp_path: Path, tiny: History
) -> None:
    store = MemoryStore()
    sources = [
        SourceImage(label=path.parent.name, path=path, split=Split.TRAIN if i < 6 else Split.VALIDATION)
        for i, path in enumerate(paint_images(tmp_path, 5))
    ]
    import_images(store, "untested", sources, seed=0)
    with pytest.raises(InvalidInput, match="untested@1 has no image in its test split"):
        requests.make_request(store, "untested", tiny.space, budget_s=60.0)


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "recall@precision=0.9"])
def test_a_metric_that_has_no_value_on_the_validation_split_is_refused(
    store: MemoryStore, tiny: History, metric: str
) -> None:
    """And just those: what the metrics themselves say of such labels is the measure."""
    two = tiny.versions[0].with_(positive_class="red")
    three = two.with_(classes=("a", "b", "c"), positive_class=None)
    several = three.with_(multi_label=True)
    cases: list[tuple[DatasetVersion, dict[str, int], int]] = [
        *((two, {"blue": blue, "red": 6 - blue}, 6) for blue in (0, 3, 6)),
        *((three, {"a": 2, "b": 4 - c, "c": c}, 6) for c in (0, 1)),
        *((several, {"a": a, "b": 2, "c": 1}, 6) for a in (0, 2, 6)),
    ]
    rng = np.random.default_rng(0)
    refused = 0
    for version, counts, n in cases:
        has = np.zeros((n, len(version.classes)), int)
        start = 0
        for column, name in enumerate(version.classes):
            has[(start + np.arange(counts[name])) % n, column] = 1
            start += 0 if version.multi_label else counts[name]
        truth = has if version.multi_label else has.argmax(1)
        positive = None if version.positive_class is None else version.classes.index(version.positive_class)
        said = rng.dirichlet(np.ones(has.shape[1]), n)
        defined = math.isfinite(Measure.of(metric, None, version.classes)(said, truth, positive))
        at = version.with_(counts={"validation": counts}, images={"validation": n})
        for stored in (at, at.with_(images={})) if not version.multi_label else (at,):
            if defined:
                requests.check_defined(metric, stored)
                continue
            refused += 1
            with pytest.raises(
                InvalidInput, match=f"{re.escape(metric)} has no value on the validation split"
            ):
                requests.check_defined(metric, stored)
            requests.check_defined("balanced_accuracy", stored)
    assert 0 < refused < 13


def test_a_request_for_a_metric_without_a_value_names_the_class_and_the_remedy(
    paint_images: Callable[..., list[Path]], tmp_path: Path, tiny: History
) -> None:
    store = MemoryStore()
    splits = [Split.TRAIN] * 6 + [Split.VALIDATION, Split.TEST, Split.TEST, Split.TRAIN]
    sources = [
        SourceImage(label=path.parent.name, path=path, split=split)
        for path, split in zip(paint_images(tmp_path, 5), splits, strict=True)
    ]
    version = import_images(store, "few", sources, seed=0)
    n = version.counts["validation"].get(str(version.positive_class), 0)
    said = f"auroc has no value .* of few@1: {n} of its 1 images are of the class '{version.positive_class}'"
    with pytest.raises(InvalidInput, match=f"{said}.*assign splits in a manifest, or rank by another metric"):
        requests.make_request(store, "few", tiny.space, budget_s=60.0, metric="auroc")
    requests.make_request(store, "few", tiny.space, budget_s=60.0)


def test_the_same_request_twice_is_one_search(store: MemoryStore, tiny: History) -> None:
    before = len(all_searches(store))
    first = requests.submit(store, request_of(store, tiny, reason="by hand"))
    assert first.status is SearchStatus.QUEUED
    requests.set_state(store, first.search, status=SearchStatus.RUNNING, attempt=1)
    again = requests.submit(store, request_of(store, tiny, reason="another reason"))
    assert (again.search, again.status, again.attempt) == (first.search, SearchStatus.RUNNING, 1)
    assert len(all_searches(store)) == before + 1
    assert requests.submit(store, request_of(store, tiny, nonce="once more")).search != first.search


def test_a_request_that_was_stored_without_its_state_is_completed(store: MemoryStore, tiny: History) -> None:
    """What a process that was killed between the two writes leaves."""
    request = request_of(store, tiny)
    records.create(store, keys.search_request(request.id), request)
    assert request.id not in {found.id for found, _ in all_searches(store)}
    assert requests.submit(store, request).status is SearchStatus.QUEUED
    assert request.id in {found.id for found, _ in all_searches(store)}


def test_an_unknown_search_is_met_with_the_near_ones(store: MemoryStore, tiny: History) -> None:
    known = tiny.searches[0].id
    with pytest.raises(NotFound, match=f"did you mean .*{known}"):
        requests.get(store, known[:-1])


def running(store: MemoryStore, search: str) -> lease.HeldLease:
    """What a process holds that runs it."""
    held = lease.acquire(store, f"search-{search}", "its process", 30.0)
    assert held is not None
    return held


def test_stopping(store: MemoryStore, tiny: History) -> None:
    search = requests.submit(store, request_of(store, tiny)).search
    stopped = requests.request_stop(store, search)
    assert (stopped.status, stopped.stop_requested) == (SearchStatus.STOPPED, False), "nobody runs it"
    requests.set_state(store, search, status=SearchStatus.RUNNING)
    with running(store, search):
        asked = requests.request_stop(store, search)
        assert (asked.status, asked.stop_requested) == (SearchStatus.RUNNING, True)
    lost = requests.request_stop(store, search)
    assert (lost.status, lost.stop_requested) == (SearchStatus.STOPPED, False), "its process is gone"
    finished = requests.set_state(store, search, status=SearchStatus.FINISHED, stop_requested=False)
    assert requests.request_stop(store, search) == finished, "what is over stays as it is"
    with pytest.raises(NotFound):
        requests.request_stop(store, "nobody")


@pytest.mark.parametrize("status", requests.LEFT)
def test_a_re_search_is_not_resumed_beside_a_newer_one(
    store: MemoryStore, tiny: History, status: SearchStatus
) -> None:
    again = {"parent_model": tiny.models[1].id, "deployment": "door"}
    old, new, plain = (
        request_of(store, tiny, seed=seed, **options)
        for seed, options in enumerate((again, again, {"deployment": "door"}))
    )
    for request in (old, new, plain):
        requests.submit(store, request)
    requests.set_state(store, old.id, status=status)
    with pytest.raises(Conflict, match=f"another re-search, '{new.id}', which is queued"):
        requests.put_back(store, old.id)
    with pytest.raises(Conflict, match=f"autovision search stop {new.id}"):
        AutoVision(store).resume(old.id)
    with pytest.raises(Conflict, match="another re-search"):
        extend(store, old.id, 10.0)
    requests.set_state(store, old.id, status=SearchStatus.FINISHED)
    with pytest.raises(Conflict, match="another re-search"):
        extend(store, old.id, 10.0)
    after = requests.get(store, old.id)[1]
    assert (after.status, after.budget_s) == (SearchStatus.FINISHED, None), "nothing is granted before"
    requests.set_state(store, old.id, status=status)
    requests.set_state(store, new.id, status=SearchStatus.FINISHED)
    assert requests.put_back(store, old.id).status is SearchStatus.QUEUED
    requests.set_state(store, plain.id, status=status)
    assert requests.put_back(store, plain.id).status is SearchStatus.QUEUED, "a person's own search"


def test_the_ledger_is_in_the_order_of_the_beginnings(
    store: MemoryStore, line: Callable[..., TrialResult]
) -> None:
    for number, trial in ((2, "02-a"), (0, "01-b"), (1, "01-c")):
        result = line(number, 0.5, trial=trial, search="s-1")
        records.create(store, keys.trial("s-1", trial), result)
    assert [result.number for result in requests.trials(store, "s-1")] == [0, 1, 2]


def test_a_summary_is_plain(store: MemoryStore, tiny: History) -> None:
    request, state = requests.get(store, tiny.searches[0].id)
    summary = requests.summary(request, state)
    assert (summary["dataset"], summary["status"], summary["trials"]) == ("colours@1", "finished", 2)
    assert summary["model"] == tiny.models[0].id


# ------------------------------------------------------------------------------------------------- weights


def test_licences_are_part_of_a_request_only_if_there_are_any(store: MemoryStore, tiny: History) -> None:
    any_, some = request_of(store, tiny), request_of(store, tiny, licenses=["MIT,Apache-2.0"])
    assert some.licenses == ("apache-2.0", "mit")
    assert some.id == request_of(store, tiny, licenses=["apache-2.0", "mit"]).id != any_.id


def test_ids_of_requests_from_before_there_were_licences_and_workers_stay() -> None:
    old = SearchRequest(dataset="d", dataset_version=1, dataset_digest="0", space={}, budget_s=60.0)
    assert old.id == old.with_(workers_per_trial=1).id == "d-8c6beac56e97"
    assert len({old.id, old.with_(workers_per_trial=2).id, old.with_(workers_per_trial=3).id}) == 3
    assert len({old.id, old.with_(max_latency_ms=2.0).id, old.with_(max_size_mb=2.0).id}) == 3
    assert old.id == old.with_(converged=False, patience_s=None, max_cost=None, prices=None).id
    stops = ({"converged": True}, {"patience_s": 60.0}, {"max_cost": 3.0})
    assert len({old.id, *(old.with_(**each).id for each in stops)}) == 4


def test_a_request_that_no_backbone_may_answer_is_refused(store: MemoryStore) -> None:
    class Published(Space):
        backbone = Choice("resnet18", "regnety_002")

    with pytest.raises(InvalidInput, match=r"resnet18: .* is apache-2\.0, not gpl-3\.0; regnety_002"):
        requests.make_request(store, "colours", Published(), budget_s=60.0, licenses=["GPL-3.0"])
    assert requests.make_request(store, "colours", Published(), budget_s=60.0, licenses=["MIT"])


def test_imported_weights_that_are_not_there_are_refused_at_once(store: MemoryStore) -> None:
    class Mine(Space):
        backbone = "test_resnet"
        weights = Choice("random", "store:mine")

    with pytest.raises(NotFound, match="no weights 'mine'"):
        requests.make_request(store, "colours", Mine(), budget_s=60.0)


def test_an_ordinary_priority_leaves_the_id_as_it_was(tiny: History) -> None:
    request = tiny.searches[0]
    assert request.with_(priority=0).id == request.id
    assert len({request.with_(priority=priority).id for priority in (-1, 0, 1)}) == 3
    with pytest.raises(InvalidInput, match="priority=11: give a whole number from -10 to 10"):
        requests.make_request(tiny.store, "colours", tiny.space, budget_s=60.0, priority=11)


def test_costs_make_the_metric_and_what_came_later_leaves_old_ids_alone(
    store: MemoryStore, tiny: History
) -> None:
    plain = request_of(store, tiny)
    costly = request_of(store, tiny, costs={"red": {"blue": 1.0}, "blue": {"red": 2.0}})
    assert costly.metric == "neg_mean_cost"
    assert request_of(store, tiny, refit=True, soup=True, costs=None).id == plain.id
    others = {request_of(store, tiny, **{name: False}).id for name in ("refit", "soup")}
    assert len(others | {plain.id, costly.id}) == 4
