from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from autovision.api import AutoVision
from autovision.cli import search_looks, search_views
from autovision.records.base import now
from autovision.records.searches import ClusterView, SearchRequest, SearchState, SearchStatus
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search import requests
from autovision.search.extending import extend
from autovision.search.sharing import cluster
from autovision.space.config import TrialConfig
from autovision.store import keys, lease, open_store, records

SPACE = "tiny:Tiny"


@pytest.fixture
def pets(cli: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set, and the search space `SPACE` in a module here."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tiny.py").write_text(
        "from autovision.space import Float, Space\n\n\n"
        "class Tiny(Space):\n"
        "    backbone = 'test_resnet'\n    weights = 'random'\n    lr = Float(1e-3, 1e-1, log=True)\n"
    )
    assert cli("dataset", "import", photos, "--name", "pets").code == 0
    return "pets"


def test_without_wait_a_search_is_queued(cli: Any, pets: str) -> None:
    ran = cli("search", "submit", pets, "--space", SPACE, "--budget-s", 20, "--seed", 2, "--json")
    assert ran.code == 0
    assert ran.answer["status"] == "queued" and set(ran.answer) == {"search", "status"}
    shown = cli("search", "submit", pets, "--space", SPACE, "--budget-s", 20, "--seed", 2)
    assert ran.answer["search"] in shown.out and "autovision controller run" in shown.out


def test_the_same_request_is_the_same_search_unless_asked_again(cli: Any, pets: str) -> None:
    line = ("search", "submit", pets, "--space", SPACE, "--json")
    first = cli(*line).answer["search"]
    assert cli(*line).answer["search"] == first
    others = {
        cli(*line, *more).answer["search"] for more in (["--again"], ["--again"], ["--cold"], ["--seed", 1])
    }
    assert len(others | {first}) == 5


def test_every_option_reaches_the_request(cli: Any, pets: str) -> None:
    line = ("search", "submit", "pets@1", "--space", SPACE, "--budget-s", 7.5, "--seed", 9)
    more = ("--metric", "f1", "--max-trials", 4, "--deployment", "door", "--cold", "--json")
    more += ("--max-latency-ms", 12.5, "--max-memory-mb", 900, "--max-size-mb", 20, "--runtime", "eager-f32")
    more += ("--workers-per-trial", 3, "--license", "MIT,apache-2.0", "--license", "CC0-1.0")
    Path("prices.toml").write_text('currency = "EUR"\ncpu = 0.5\n')
    more += ("--patience-s", 90, "--converged", "--max-cost", 2.5, "--prices", "prices.toml")
    search = cli(*line, *more).answer["search"]
    request = cli("search", "show", search, "--json").answer["request"]
    assert request["space"]["name"] == "Tiny"
    wanted = {
        **{"budget_s": 7.5, "seed": 9, "metric": "f1", "max_trials": 4},
        **{"deployment": "door", "warm_start": False, "dataset_version": 1, "nonce": ""},
        "licenses": ["apache-2.0", "cc0-1.0", "mit"],
        "workers_per_trial": 3,
        **{"max_latency_ms": 12.5, "max_memory_mb": 900.0, "max_size_mb": 20.0, "runtime": "eager-f32"},
        **{"patience_s": 90.0, "converged": True, "max_cost": 2.5},
        "prices": {"currency": "EUR", "cpu": 0.5, "gpu": None, "gpus": {}, "nodes": {}},
    }
    assert {name: request[name] for name in wanted} == wanted


def test_costs_are_read_from_a_file_and_shown(cli: Any, pets: str, tmp_path: Path) -> None:
    costs = {"cat": {"dog": 3}, "dog": {"cat": 1}}
    (tmp_path / "costs.json").write_text(json.dumps(costs))
    line = ("search", "submit", pets, "--space", SPACE, "--json", "--no-refit", "--no-soup")
    search = cli(*line, "--costs", tmp_path / "costs.json").answer["search"]
    shown = cli("search", "show", search)
    request = cli("search", "show", search, "--json").answer["request"]
    assert (request["metric"], request["costs"]) == ("neg_mean_cost", costs)
    assert (request["refit"], request["soup"]) == (False, False)
    assert "dog for cat: 3" in shown.out and "without refit and soup" in shown.out


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("{", "is no JSON"), ("[]", "holds no costs"), ('{"cat": 3}', "entry of 'cat'")],
)
def test_a_file_without_costs_is_refused(
    cli: Any, pets: str, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "costs.json").write_text(text)
    ran = cli("search", "submit", pets, "--space", SPACE, "--costs", tmp_path / "costs.json")
    assert ran.code == 2 and said in ran.err


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--budget-s", "0"], 2, "budget"),
        (["--budget-s", "-3"], 2, "budget"),
        (["--budget-s", "nan"], 2, "budget"),
        (["--budget-s", "inf"], 2, "budget"),
        (["--max-trials", "0"], 2, "max_trials"),
        (["--workers-per-trial", "0"], 2, "workers_per_trial"),
        (["--max-latency-ms", "0"], 2, "max_latency_ms"),
        (["--patience-s", "0"], 2, "patience_s"),
        (["--max-cost", "3"], 2, "AUTOVISION_PRICES"),
        (["--max-cost", "3", "--prices", "none.toml"], 2, "none.toml"),
        (["--metric", "acuracy"], 2, "accuracy"),
        (["--space", "quik"], 2, "quick"),
        (["--space", "nowhere:Space"], 2, "nowhere"),
        (["--space", "missing.json"], 2, "missing.json"),
        (["--deployment", "No Name"], 2, "No Name"),
    ],
)
def test_bad_input_is_one_error(cli: Any, pets: str, more: list[str], code: int, said: str) -> None:
    ran = cli("search", "submit", pets, "--space", SPACE, *more, "--json", "--wait")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("error: ") and said in ran.err and len(ran.err.splitlines()) == 1


def test_a_table_of_prices_may_stand_in_the_environment(
    cli: Any, pets: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("search", "submit", pets, "--space", SPACE, "--json")
    plain = cli(*line).answer["search"]
    (tmp_path / "prices.json").write_text(json.dumps({"currency": "USD", "cpu": 0.1}))
    monkeypatch.setenv("AUTOVISION_PRICES", str(tmp_path / "prices.json"))
    assert cli(*line).answer["search"] == plain, "where nothing is limited it is no part of the request"
    search = cli(*line, "--max-cost", 3).answer["search"]
    assert cli("search", "show", search, "--json").answer["request"]["prices"]["currency"] == "USD"
    told = cli("search", "estimate", pets, "--space", SPACE, "--json").answer
    assert told["currency"] == "USD" and told["cost"] > 0


def test_estimate(cli: Any, pets: str) -> None:
    line = ("search", "estimate", pets, "--space", SPACE, "--budget-s", 300)
    told = cli(*line, "--json").answer
    assert told["enough"] and told["heads"]["low"] <= told["heads"]["value"] <= told["heads"]["high"]
    assert [each["backbone"] for each in told["features"]] == ["test_resnet"]
    assert told["cost"] is None and told["measured"] == 0.0
    shown = " ".join(cli(*line).out.split())
    for said in ("it buys", "heads", "from arithmetic alone", "test_resnet", "four of five"):
        assert said in shown
    assert "likely not even" in " ".join(cli(*line[:-1], 3).out.split())
    assert cli("search", "list", "--json").answer == [], "nothing was submitted"
    assert cli("search", "estimate", "nothing").code == 3


def test_an_estimate_is_of_the_cluster_that_the_environment_names(
    cli: Any, pets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which costs, and does, more than this machine; without one nothing is started for it."""
    connected: list[str] = []
    monkeypatch.setattr(AutoVision, "connect", lambda av: connected.append("now"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    line = ("search", "estimate", pets, "--space", SPACE)
    assert cli(*line).code == 0 and connected == []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cli(*line).code == 0 and connected == ["now"]
    refused = cli(*line, "--workers-per-trial", 10_000)
    assert refused.code == 2 and "10000 workers per trial need 10000" in refused.err


@pytest.mark.parametrize(("address", "said"), [("", "Ray of this machine"), ("10.0.0.1:6379", "Ray at 10.0")])
def test_a_ray_that_cannot_be_used_is_no_bug_of_ours(
    cli: Any, pets: str, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    def refuse(**settings: Any) -> None:
        raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    ran = cli("search", "submit", pets, "--space", SPACE, "--wait")
    assert ran.code == 7 and said in ran.err and "timed out during startup; " in ran.err


def test_extend_and_finish(cli: Any, world: Any) -> None:
    ran = cli("search", "finish", world.search, "--json")
    assert ran.code == 0 and ran.answer["model"] == world.model, "finished searches are shown as they are"
    assert cli("search", "resume", world.search, "--budget-s", 0).code == 2
    store = open_store(world.folder)
    extended = extend(store, world.search, 60.0)
    assert extended.status is SearchStatus.STOPPED and extended.model == world.model
    shown = " ".join(cli("search", "show", world.search).out.split())
    assert "(extended; asked for 30)" in shown
    (listed,) = cli("search", "list", "--json").answer
    assert listed["budget_s"] == extended.budget_s
    extend(store, world.search, 60.0, more_trials=4)
    assert "3 of 7" in " ".join(cli("search", "show", world.search).out.split())
    refused = cli("search", "resume", world.search, "--max-cost", 3)
    assert refused.code == 2 and "nothing tells what the cluster costs" in refused.err
    requests.set_state(store, world.search, status=SearchStatus.RUNNING)
    assert cli("search", "resume", world.search, "--budget-s", 60).code == 4


def test_what_a_search_cost_and_why_it_ended_are_shown(cli: Any, world: Any) -> None:
    requests.set_state(
        *(open_store(world.folder), world.search),
        **{"cost": 0.0123, "per_hour": 1.5, "currency": "EUR", "estimate": "30 s buy about 9 heads"},
        ended_early="the best has not risen",
    )
    shown = " ".join(cli("search", "show", world.search).out.split())
    for said in ("0.0123 EUR, at 1.50 EUR an hour", "30 s buy about 9 heads", "the best has not risen"):
        assert said in shown
    assert cli("search", "show", world.search, "--json").answer["cost"] == 0.0123


def test_an_unknown_backbone_gets_the_near_ones(cli: Any, pets: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from autovision.space import Space\n\n\nclass Odd(Space):\n    backbone = 'tf_eficientnet_lite0'\n"
    )
    ran = cli("search", "submit", pets, "--space", "odd:Odd")
    assert ran.code == 2
    assert "tf_efficientnet_lite0" in ran.err


def test_a_data_set_that_does_not_exist(cli: Any) -> None:
    ran = cli("search", "submit", "nothing", "--wait", "--json")
    assert (ran.code, ran.out) == (3, "")


def test_list(cli: Any, pets: str) -> None:
    assert cli("search", "list", "--json").answer == []
    assert "no search yet" in cli("search", "list").out
    search = cli("search", "submit", pets, "--space", SPACE, "--json").answer["search"]
    (listed,) = cli("search", "list", "--json").answer
    assert (listed["search"], listed["dataset"], listed["status"]) == (search, "pets@1", "queued")
    shown = cli("search", "list").out
    assert search in shown and "queued" in shown


def test_stop_resume_and_watch_of_a_queued_search(cli: Any, pets: str) -> None:
    search = cli("search", "submit", pets, "--space", SPACE, "--json").answer["search"]
    stopped = cli("search", "stop", search)
    assert stopped.code == 0 and "search resume" in stopped.out
    assert cli("search", "stop", search, "--json").answer["status"] == "stopped"
    watched = cli("search", "watch", search, "--json")
    assert (watched.code, watched.answer["status"]) == (0, "stopped")
    again = cli("search", "submit", pets, "--space", SPACE)
    assert "is stopped" in again.out and "search resume" in again.out


@pytest.mark.parametrize("verb", ["show", "watch", "stop", "resume"])
def test_a_search_that_does_not_exist(cli: Any, pets: str, verb: str) -> None:
    search = cli("search", "submit", pets, "--space", SPACE, "--json").answer["search"]
    ran = cli("search", verb, search[:-1] + "!", "--json")
    assert (ran.code, ran.out) == (3, "")
    assert search in ran.err, "the near id is offered"


# -------------------------------------------------------------------------------------- a search that is over


def test_show_has_the_best_trials_first_and_the_reasons_of_failures(cli: Any, world: Any) -> None:
    ran = cli("search", "show", world.search)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    shown = " ".join(ran.out.split())
    assert "The best 2 of 3 trials" in shown
    assert "complete 2" in shown and "failed 1" in shown
    assert "1 NotFinite: the loss is not finite at epoch 2" in shown and "Traceback" not in shown
    answer = cli("search", "show", world.search, "--json").answer
    assert [trial["number"] for trial in answer["trial_results"]] == [0, 1, 2]
    assert answer["state"]["status"] == "finished" and answer["model"] == world.model


@pytest.mark.parametrize("verb", ["submit", "resume"])
def test_a_finished_search_answers_with_its_model_and_plain_figures(cli: Any, world: Any, verb: str) -> None:
    """Ray is not needed for it, and cannot be started here."""
    if verb == "resume":
        ran = cli("search", "resume", world.search, "--json")
    else:
        request = cli("search", "show", world.search, "--json").answer["request"]
        Path("space.json").write_text(json.dumps(request["space"]))
        ran = cli(
            *("search", "submit", "pets", "--space", "space.json", "--budget-s", 30, "--seed", 1),
            *("--max-trials", 5, "--wait", "--json"),
        )
    assert ran.code == 0
    answer = ran.answer
    assert set(answer) == {"search", "model", "metrics", "trials", "wall_s"}
    assert (answer["search"], answer["model"], answer["trials"]) == (world.search, world.model, 3)
    assert answer["wall_s"] > 0
    metrics = answer["metrics"]
    for name in ("accuracy", "balanced_accuracy", "f1", "auroc", "log_loss", "ece"):
        assert isinstance(metrics[name], float), name
    low, high = metrics["accuracy_interval"]
    assert low <= metrics["accuracy"] <= high
    assert metrics["n"] == sum(cli("dataset", "show", "pets", "--json").answer["counts"]["test"].values())
    assert "--again" in ran.err


def test_people_see_the_model_and_what_to_do_next(cli: Any, world: Any) -> None:
    shown = cli("search", "resume", world.search).out
    assert world.model in shown and f"autovision promote {world.model} --to NAME" in " ".join(shown.split())


def test_watch_a_finished_search(cli: Any, world: Any) -> None:
    ran = cli("search", "watch", world.search, "--json")
    assert ran.code == 0
    assert ran.answer["status"] == "finished" and ran.answer["metrics"]["accuracy"] <= 1
    assert "2 complete" in ran.err, "the progress is on stderr"


def test_watch_follows_until_the_search_has_failed(cli: Any, world: Any) -> None:
    store = open_store(world.folder)
    requests.set_state(store, world.search, status=SearchStatus.RUNNING, model=None)

    def fail() -> None:
        requests.set_state(store, world.search, status=SearchStatus.FAILED, error="every trial failed")

    later = threading.Timer(1.5, fail)
    later.start()
    ran = cli("search", "watch", world.search, "--json")
    later.join()
    assert ran.code == 1
    assert (ran.answer["status"], ran.answer["error"]) == ("failed", "every trial failed")


def test_stopping_what_is_over_changes_nothing(cli: Any, world: Any) -> None:
    ran = cli("search", "stop", world.search)
    assert ran.code == 0 and "over already" in ran.out
    assert cli("search", "list", "--json").answer[0]["status"] == "finished"


# --------------------------------------------------------------------------------------------------- views


def _request() -> SearchRequest:
    return SearchRequest(dataset="pets", dataset_version=1, dataset_digest="d", space={}, budget_s=60)


def _trial(number: int, at: Callable[[float], datetime], **changes: Any) -> TrialResult:
    point = CurvePoint(
        rung=0, epoch=1, seconds=1, search_s=30 + number, train_loss=1, metrics={"accuracy": 0.5}
    )
    base: dict[str, Any] = {
        **{
            "search": "s",
            "trial": f"t{number}",
            "number": number,
            "state": TrialState.COMPLETE,
            "config": {},
        },
        **{"parameters": {}, "origin": "sampled", "curve": (point,), "created_at": at(0)},
        **{"value": 0.5, "metrics": point.metrics},
    }
    return TrialResult(**{**base, **changes})


def test_time_in_a_followed_search_never_goes_back(at: Callable[[float], datetime]) -> None:
    state = SearchState(search="s", spent_s=10, created_at=at(0), updated_at=at(0))
    trials = [_trial(1, at), _trial(2, at, state=TrialState.FAILED)]
    event = search_views.progress_event(_request(), state, trials, least_s=0)
    assert event.elapsed_s == 32, "the last thing that a trial reported"
    assert (event.complete, event.failed) == (1, 1)
    assert search_views.progress_event(_request(), state, [], least_s=0).elapsed_s == 10
    assert search_views.progress_event(_request(), state, trials, least_s=40).elapsed_s == 40
    running = state.with_(status=SearchStatus.RUNNING)
    assert search_views.progress_event(_request(), running, trials, least_s=0).elapsed_s > 1000


def test_why_a_search_ended_as_it_did(cli: Any, pets: str, tmp_path: Path) -> None:
    search = cli("search", "submit", pets, "--space", SPACE, "--json").answer["search"]
    store = open_store(str(tmp_path / "store"))
    for number in range(12):
        value = 0.5 + 0.02 * (number % 7)
        metrics = {"accuracy": value, "neg_log_loss": -0.5}
        point = {"lr": 10 ** (-3 + number / 6)}
        records.create(
            store,
            keys.trial(search, f"t{number}"),
            TrialResult(
                search=search,
                trial=f"t{number}",
                number=number,
                state=TrialState.PRUNED if number % 7 < 3 else TrialState.COMPLETE,
                config=TrialConfig(backbone="test_resnet", weights="random", **point).model_dump(mode="json"),
                parameters=point,
                origin="sampled",
                curve=(
                    CurvePoint(rung=0, epoch=1, seconds=1, search_s=number, train_loss=1, metrics=metrics),
                ),
                value=value,
                metrics=metrics,
                weights_key="w",
                seconds=2.5,
                created_at=now(),
            ),
        )
    page = tmp_path / "why.html"
    ran = cli("search", "explain", search, "--html", page)
    assert ran.code == 0
    for said in ("t6", "lr", "0.62", "Pruned, being behind", "training 30.0"):
        assert said in ran.out
    assert str(page) in ran.err and "What mattered" in page.read_text()
    answer = cli("search", "explain", search, "--json").answer
    assert answer["winner"]["trial"] == "t6" and answer["ended"] == {"complete": 6, "pruned": 6}
    assert [each["parameter"] for each in answer["importance"]] == ["lr"]
    assert cli("search", "explain", "nothing-like-it").code == 3


# --------------------------------------------------------------------------------------------------- the queue


@pytest.fixture
def controlled(cli: Any, pets: str, tmp_path: Path) -> Iterator[str]:
    """A controller that runs on a cluster of two processors, as far as the store can tell."""
    store = open_store(tmp_path / "store")
    held = lease.acquire(store, "controller", "another process", 60)
    assert held is not None
    cluster.note(store, ClusterView(name="plant", nodes=({"CPU": 2.0, "memory": 8e9},), seen_at=now()))
    with held:
        yield pets


def test_the_queue_shows_its_order_and_why_each_waits(cli: Any, controlled: str) -> None:
    empty = cli("search", "queue")
    assert (empty.code, "autovision search submit" in empty.out) == (0, True)
    line = ("search", "submit", controlled, "--space", SPACE, "--json")
    ids = [
        cli(*line, "--seed", seed, "--priority", priority).answer["search"]
        for seed, priority in enumerate((0, 3, 0))
    ]
    found = cli("search", "queue", "--json").answer
    assert [each["search"] for each in found] == [ids[1], ids[0], ids[2]]
    assert [(each["position"], each["priority"], each["share"]) for each in found] == [
        (1, 3, None),
        (2, 0, None),
        (3, 0, None),
    ]
    assert [each["why"] for each in found] == [
        "is about to begin",
        "is about to begin",
        f"needs 1 of 2 places; 2 are kept for {ids[1]}, {ids[0]}",
    ]
    shown = cli("search", "queue").out
    assert [shown.index(search) for search in (ids[1], ids[0], ids[2])] == sorted(
        shown.index(search) for search in ids
    )
    assert "needs 1 of 2 places" in " ".join(shown.split())
    assert "priority 3" in " ".join(cli("search", "show", ids[1]).out.split())
    assert cli("search", "list", "--json").answer[1]["priority"] == 3


def test_without_a_controller_the_queue_says_so(cli: Any, pets: str) -> None:
    cli("search", "submit", pets, "--space", SPACE)
    (each,) = cli("search", "queue", "--json").answer
    assert each["why"].startswith("no controller runs: `autovision controller run`")


def test_a_priority_beyond_all_is_refused(cli: Any, pets: str) -> None:
    assert cli("search", "submit", pets, "--space", SPACE, "--priority", 11).code == 2


def test_a_dry_run_tells_what_would_happen_and_submits_nothing(cli: Any, controlled: str) -> None:
    line = ("search", "submit", controlled, "--space", SPACE)
    first = cli(*line, "--workers-per-trial", 2, "--json").answer["search"]
    told = cli(*line, "--seed", 1, "--dry-run", "--json").answer
    assert (told["cluster"], told["places"], told["share"], told["whole"]) == ("plant", 2, 2, 2)
    assert (told["position"], told["ahead"], told["faults"]) == (2, [first], [])
    assert told["waits"] == f"needs 1 of 2 places; 2 are kept for {first}"
    shown = " ".join(cli(*line, "--seed", 1, "--budget-s", 3, "--dry-run").out.split())
    assert "plant, 2 places" in shown and "position 2; waits: needs 1 of 2 places" in shown
    assert "up to 2 trials at once" in shown and "a budget of 3 s ends before" in shown
    assert [each["search"] for each in cli("search", "list", "--json").answer] == [first]


def test_what_can_never_fit_is_refused_when_it_is_submitted(cli: Any, controlled: str) -> None:
    line = ("search", "submit", controlled, "--space", SPACE)
    refused = cli(*line, "--workers-per-trial", 3)
    assert refused.code == 2 and "3 workers per trial need 3 CPUs at once" in refused.err
    small = cli(*line, "--max-size-mb", 0.0001)
    assert small.code == 2 and "nothing in the space 'Tiny' meets the limits" in small.err
    dry = cli(*line, "--workers-per-trial", 3, "--max-size-mb", 0.0001, "--dry-run", "--json")
    assert dry.code == 2 and len(dry.answer["faults"]) == 2
    shown = cli(*line, "--workers-per-trial", 3, "--dry-run")
    assert shown.code == 2 and "can never run" in shown.out and "ask for at most 2" in shown.out
    assert cli("search", "list", "--json").answer == []


# ------------------------------------------------------------------------------- samplers and objectives


def test_a_search_says_what_draws_it_and_what_it_minimises(cli: Any, pets: str) -> None:
    line = ("search", "submit", pets, "--space", SPACE, "--json")
    asked = ("--objective", "latency_ms", "--objective", "size_mb", "--sampler", "nsga2")
    search = cli(*line, *asked).answer["search"]
    assert search != cli(*line).answer["search"]
    shown = cli("search", "show", search)
    assert "latency_ms, size_mb" in shown.out and "nsga2" in shown.out
    assert cli("search", "show", search, "--json").answer["front"] is None


@pytest.mark.parametrize(
    ("asked", "says"),
    (
        (("--sampler", "tp"), "did you mean 'tpe'"),
        (("--sampler", "tiny:Tiny"), "no optuna.samplers.BaseSampler"),
        (("--sampler", "cmaes"), "needs two parameters or more that are numbers"),
        (("--objective", "latency"), "did you mean 'latency_ms'"),
    ),
)
def test_what_cannot_be_searched_so_is_refused(
    cli: Any, pets: str, asked: tuple[str, ...], says: str
) -> None:
    ran = cli("search", "submit", pets, "--space", SPACE, *asked)
    assert ran.code == 2
    assert says in ran.err


def test_the_front_is_shown_and_explained(cli: Any, pets: str, tmp_path: Path) -> None:
    submitted = cli("search", "submit", pets, "--space", SPACE, "--objective", "latency_ms", "--json")
    search, store = submitted.answer["search"], open_store(tmp_path / "store")
    for number, (accuracy, ms) in enumerate(((0.9, 20.0), (0.8, 5.0), (0.7, 6.0), (0.85, 8.0))):
        metrics = {"accuracy": accuracy, "neg_log_loss": -0.5}
        point = CurvePoint(
            rung=0, epoch=1, seconds=1.0, search_s=1.0 + number, train_loss=0.5, metrics=metrics
        )
        result = TrialResult(
            search=search,
            trial=f"01-{number:05d}-abcdef",
            number=number,
            state=TrialState.COMPLETE,
            config=TrialConfig(backbone="test_resnet", lr=0.01 * (1 + number)).model_dump(mode="json"),
            parameters={"lr": 0.01 * (1 + number)},
            origin="sampled",
            curve=(point,),
            value=accuracy - 0.01,
            metrics=metrics,
            objectives={"latency_ms": ms},
            weights_key="w",
            created_at=now(),
        )
        records.create(store, keys.trial(search, result.trial), result)
    front = ["01-00000-abcdef", "01-00003-abcdef", "01-00001-abcdef"]
    assert cli("search", "show", search, "--json").answer["front"] == front
    shown = cli("search", "show", search).out
    assert (
        "the model" in shown
        and "best bargain" in shown
        and f"finish {search} --trial" in " ".join(shown.split())
    )
    page = tmp_path / "why.html"
    told = cli("search", "explain", search, "--html", page, "--json").answer["front"]
    assert [offer["trial"] for offer in told["offers"]] == front
    assert [offer["chosen"] for offer in told["offers"]] == [True, False, False]
    assert [offer["knee"] for offer in told["offers"]] == [False, True, False]
    assert 0 < told["hypervolume"] < 1
    records.update(
        store,
        keys.search_state(search),
        SearchState,
        lambda state: state.with_(model="m", best_trial=front[1]),
    )
    row = next(line for line in cli("search", "show", search).out.splitlines() if "the model" in line)
    assert front[1] in row
    html = page.read_text()
    assert "What there is to choose from" in html and "accuracy over latency_ms" in html
    missing = cli("search", "finish", search, "--trial", "01-00009-abcdef")
    assert missing.code == 3 and "did you mean" in missing.err
    assert "evaluating" not in missing.err, "nothing is said to be done that is not"


def test_whoever_watches_is_told_that_a_search_is_overdue_by_the_budget_that_it_was_extended_to(
    world: Any,
) -> None:
    request, state = requests.get(open_store(world.folder), world.search)
    running = state.with_(status=SearchStatus.RUNNING)
    assert "far beyond its budget" in search_looks._remark(request, running, 100.0)
    assert search_looks._remark(request, running.with_(budget_s=90.0), 100.0) == ""
    assert "far beyond its budget" in search_looks._remark(request, running.with_(budget_s=90.0), 160.0)
