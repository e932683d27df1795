"""Why a search ended as it did."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from autovision.cli.search_views import explanation
from autovision.records.models import Candidacy, Confirmation, FinishRecord, Refit
from autovision.records.searches import Excess, SearchRequest, SearchState, SearchStatus
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.report.explanation import headline, render
from autovision.search.explain import Explanation, cuts, explain, importance, improvements
from autovision.search.schedulers import Halving, Report, Verdict
from autovision.space import Choice, Float, Space
from autovision.space.config import TrialConfig
from tests.unit.conftest import History

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Heads(Space):
    """Only the rate matters, and of an MLP its width."""

    backbone = "test_resnet"
    weights = "random"
    lr = Float(1e-4, 1e-1, log=True)
    dropout = Float(0.0, 0.5)
    head = Choice("linear", "mlp")
    head_width = Choice(16, 256, when={"head": "mlp"})


def request() -> SearchRequest:
    space = Heads.to_json()
    return SearchRequest(dataset="pets", dataset_version=1, dataset_digest="d", space=space, budget_s=60)


def state(**changes: Any) -> SearchState:
    base = {"search": request().id, "status": SearchStatus.FINISHED, "spent_s": 55.5}
    return SearchState.model_validate({**base, "created_at": EPOCH, "updated_at": EPOCH, **changes})


def trial(
    number: int, values: Sequence[float], *, point: dict[str, Any] | None = None, **changes: Any
) -> TrialResult:
    """A trial that reports at second `number`, `number + 100`, …"""
    point = point or {"lr": 1e-3, "dropout": 0.1, "head": "linear"}
    curve = tuple(
        CurvePoint(
            rung=rung,
            epoch=3**rung,
            seconds=1.0,
            search_s=number + 100.0 * rung,
            train_loss=0.1,
            metrics={"accuracy": value, "neg_log_loss": 0.0},
        )
        for rung, value in enumerate(values)
    )
    fields: dict[str, Any] = {
        "search": request().id,
        "trial": f"01-{number:05d}-abcdef",
        "number": number,
        "state": TrialState.COMPLETE if values else TrialState.FAILED,
        "config": Heads.config(point).model_dump(mode="json"),
        "parameters": point,
        "origin": "sampled",
        "curve": curve,
        "value": max(values, default=None),
        "metrics": curve[-1].metrics if curve else {},
        "weights_key": "w" if values else None,
        "seconds": 3.0,
        "feature_s": 1.0,
        "created_at": EPOCH,
    }
    return TrialResult.model_validate(fields | changes)


def ledger(count: int = 60) -> list[TrialResult]:
    """Trials whose value follows from the rate, and of an MLP from its width, too."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        point = Heads.sample(rng)
        best = -abs(math.log10(float(point["lr"])) + 2) / 10
        wide = 0.1 if point.get("head_width") == 16 else 0.0  # 256 is what stands in for none
        found.append(trial(number, [0.8 + best + wide], point=point))
    return found


def test_what_mattered_is_found() -> None:
    found = {each.parameter: each for each in importance(Heads(), ledger(), "accuracy")}
    assert set(found) == {"lr", "dropout", "head", "head_width"}
    assert found["lr"].share > 2 * found["dropout"].share
    assert found["head_width"].share + found["head"].share > 2 * found["dropout"].share
    assert found["head_width"].trials < found["lr"].trials == 60, "so many have it"
    assert (found["head_width"].best, found["lr"].best) == (16, None)
    order = [each.share for each in importance(Heads(), ledger(), "accuracy")]
    assert order == sorted(order, reverse=True) and all(0 <= share <= 1 for share in order)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_few_trials_say_nothing_about_what_mattered(count: int) -> None:
    assert importance(Heads(), ledger(count), "accuracy") == []


def test_equal_values_and_values_that_are_not_finite_are_no_differences() -> None:
    alike = [
        trial(n, [0.5], point={"lr": 1e-3 * (n + 1), "dropout": 0.1, "head": "linear"}) for n in range(9)
    ]
    assert importance(Heads(), alike, "accuracy") == []
    assert importance(Heads(), [trial(n, [math.nan]) for n in range(9)], "accuracy") == []


def test_a_pruned_trial_is_shown_with_what_it_needed_at_that_moment() -> None:
    """Values come in at different moments; a later, better one says nothing about an earlier decision."""
    values = [0.5, 0.8, 0.6, 0.7, 0.9]
    scheduler, found = Halving(), []
    for number, value in enumerate(values):
        goes_on = scheduler.judge(Report(str(number), "head", 0, 1.0, value)) is Verdict.GO_ON
        found.append(trial(number, [value], state=TrialState.COMPLETE if goes_on else TrialState.PRUNED))
    first, second = cuts(found[::-1], "accuracy")
    assert (first.trial, first.value, first.needed, first.seen) == (found[2].trial, 0.6, 0.8, 3)
    assert (second.trial, second.value, second.needed, second.seen) == (found[3].trial, 0.7, 0.8, 4)


def test_kinds_are_compared_among_themselves() -> None:
    tuned = TrialConfig(backbone="test_resnet", unfreeze=1).model_dump(mode="json")
    heads = [trial(n, [0.9]) for n in range(3)]
    others = [trial(3 + n, [value], config=tuned) for n, value in enumerate([0.5, 0.6])]
    last = trial(9, [0.4], config=tuned, state=TrialState.PRUNED)
    (cut,) = cuts([*heads, *others, last], "accuracy")
    assert (cut.needed, cut.seen) == (0.6, 3)


def test_improvements_in_order_of_time() -> None:
    found = improvements(
        [trial(5, [0.9]), trial(1, [0.5, 0.7]), trial(3, [0.4]), trial(2, [math.nan])], "accuracy"
    )
    assert [(each.search_s, each.value) for each in found] == [(1.0, 0.5), (5.0, 0.9)]


def test_the_winner_beside_the_runner_up() -> None:
    point = {"lr": 1e-2, "dropout": 0.1, "head": "linear"}
    found = explain(request(), state(), [trial(0, [0.7]), trial(1, [0.75], point=point), trial(2, [0.6])])
    assert found.winner is not None
    assert (found.winner.trial, found.winner.runner_up) == ("01-00001-abcdef", "01-00000-abcdef")
    assert found.winner.lead == pytest.approx(0.05)
    assert found.winner.differs == {"lr": (1e-2, 1e-3)}
    assert found.winner.changed["lr"] == 1e-2


def test_the_winner_is_the_best_of_those_that_were_judged_once_more() -> None:
    lines = [trial(0, [0.7]), trial(1, [0.75]), trial(2, [0.6])]
    record = FinishRecord(
        search=request().id,
        ledger="0",
        trials=(lines[0].trial,),
        chosen_key="w",
        final_key="w",
        confirmed=(
            Confirmation(trial=lines[0].trial, value=0.7, confirmed=0.72),
            Confirmation(trial=lines[1].trial, value=0.75, confirmed=0.69),
        ),
        created_at=EPOCH,
    )
    found = explain(request(), state(), lines, record)
    assert found.winner is not None
    assert (found.winner.trial, found.winner.runner_up) == (lines[0].trial, lines[1].trial)
    assert found.winner.lead == pytest.approx(0.03) and found.winner.judged_on == "train and validation"
    assert [each.confirmed for each in found.confirmed] == [0.72, 0.69]
    page = render(found, request(), state(), lines)
    assert "<h2>Judged once more</h2>" in page and "0.7200" in page
    assert "the first of them became the model" in page
    assert "Judged once more" not in render(explain(request(), state(), lines), request(), state(), lines)


def test_the_champion_beside_the_best_trial() -> None:
    lines = [trial(0, [0.7]), trial(1, [0.75])]
    record = FinishRecord(
        search=request().id,
        ledger="0",
        trials=(lines[1].trial,),
        chosen_key="w",
        final_key="w",
        candidate="recalibrated",
        candidates=(
            Candidacy(
                candidate="recalibrated",
                value=0.7654,
                expected=0.7512,
                chance=0.85,
                at_risk="recall of cat 0.900 to 0.880 on 50 images",
            ),
            Candidacy(candidate="trained", value=0.7321),
            Candidacy(candidate="unchanged", value=0.7),
        ),
        created_at=EPOCH,
    )
    found = explain(request(), state(), lines, record)
    assert [each.candidate for each in found.candidates] == ["recalibrated", "trained", "unchanged"]
    page = render(found, request(), state(), lines)
    assert "<h2>Beside the champion</h2>" in page and "0.7654" in page
    risk = "recall of cat 0.900 to 0.880 on 50 images"
    assert risk in page and "85%" in page and "0.7512" in page
    assert f"the champion, its probabilities and decisions fitted anew 0.7654 85% 0.7512 {risk}" in told(
        found
    )
    assert "Beside the champion" not in told(explain(request(), state(), lines))


def test_of_those_that_were_judged_once_more_the_first_is_the_one_of_which_most_is_expected() -> None:
    lines = [trial(0, [0.7]), trial(1, [0.75])]
    judged = (
        Confirmation(trial=lines[0].trial, value=0.7, confirmed=0.72, expected=0.71, chance=0.9, at_risk="x"),
        Confirmation(
            trial=lines[1].trial, value=0.75, confirmed=0.74, expected=0.64, chance=0.2, at_risk="y"
        ),
    )
    record = FinishRecord(
        search=request().id,
        ledger="0",
        trials=(lines[0].trial,),
        chosen_key="w",
        final_key="w",
        confirmed=judged,
        created_at=EPOCH,
    )
    found = explain(request(), state(), lines, record)
    assert found.winner is not None and found.winner.lead == pytest.approx(0.07)
    page = render(found, request(), state(), lines)
    assert "chance at the gates" in page and "0.7100" in page and "20%" in page
    assert "0.7000 0.7200 90% 0.7100 x" in told(found)
    # Where they were not judged once more, a trial with a lower value may have won.
    early = explain(request(), state(), lines, record.with_(confirmed=()))
    assert early.winner is not None and early.winner.lead == pytest.approx(-0.05)
    assert "ahead by 0.0500 on validation, but less is expected of it" in told(early)
    assert "but less is expected of offering it" in render(early, request(), state(), lines)


def told(found: Explanation) -> str:
    """What is printed of it, without its line breaks."""
    console = Console(width=400, file=(out := io.StringIO()))
    for part in explanation(found):
        console.print(part)
    return " ".join(out.getvalue().split())


def test_a_fine_tuned_winner_is_not_said_to_be_the_first_of_those_that_were_judged_once_more() -> None:
    tuned = TrialConfig(backbone="test_resnet", unfreeze=1).model_dump(mode="json")
    lines = [trial(0, [0.7]), trial(1, [0.75]), trial(2, [0.9], config=tuned)]
    judged = tuple(
        Confirmation(trial=line.trial, value=line.value or 0.0, confirmed=0.72 - 0.01 * line.number)
        for line in lines[:2]
    )
    record = FinishRecord(
        search=request().id,
        ledger="0",
        trials=(lines[2].trial,),
        chosen_key="w",
        final_key="w",
        confirmed=judged,
        created_at=EPOCH,
    )
    found = explain(request(), state(), lines, record)
    page = render(found, request(), state(), lines)
    assert "the first of them became" not in page
    assert f"The model is {lines[2].trial} all the same" in page
    assert f"the model is {lines[2].trial}, which cannot be" in told(found)
    won = explain(request(), state(), lines[:2], record.with_(trials=(lines[0].trial,)))
    assert "the first became the model" in told(won)


def test_the_lead_is_in_what_trials_are_ranked_by() -> None:
    """The winner may be behind in the metric itself, and ahead by its log loss."""
    first, second = trial(0, [0.80]), trial(1, [0.801])
    lines = [first.with_(value=0.795), second.with_(value=0.79)]
    found = explain(request(), state(), lines)
    assert found.winner is not None and found.winner.trial == first.trial
    assert found.winner.lead == pytest.approx(0.005)
    page = render(found, request(), state(), lines)
    ranked = "in the value that trials are ranked by"
    assert f"leads {second.trial} by 0.0050 on validation, {ranked}: accuracy less" in page
    assert f"{second.trial}, behind by 0.0050 on validation, {ranked} (accuracy less" in told(found)
    assert "points" not in page and "points" not in told(found)


def test_seconds_failures_and_what_was_left_out() -> None:
    lost = "Traceback\n  …\nNotFinite: the loss is nan"
    found = explain(
        request(),
        state(notes=("left out resnet18: no weights",)),
        [
            trial(4, [0.7]),
            trial(5, [0.6], state=TrialState.PRUNED, seconds=2.0),
            trial(6, [], error=lost),
            trial(7, [], error=lost, seconds=5.0),
        ],
    )
    assert found.ended == {"failed": 2, "complete": 1, "pruned": 1}
    assert [(each.reason, each.trials) for each in found.failures] == [("NotFinite: the loss is nan", 2)]
    seconds = found.seconds
    assert (seconds.wall, seconds.first_value) == (55.5, 4.0)
    assert (seconds.features, seconds.training, seconds.pruned, seconds.failed) == (4.0, 9.0, 2.0, 8.0)
    assert seconds.by_backbone == {"test_resnet": 13.0}
    assert found.left_out == ("left out resnet18: no weights",)


def test_the_ladder_goes_from_feasibility_to_the_finish_and_the_clock_is_divided_so() -> None:
    lines = [trial(0, [0.7]), trial(1, [0.75])]
    record = FinishRecord(
        search=request().id,
        ledger="0",
        trials=(lines[1].trial, lines[0].trial),
        chosen_key="w",
        final_key="v",
        refit=Refit(images=1234, epochs={lines[1].trial: 9}, before_key="w"),
        notes=("2 trials are averaged: better in 95 %",),
        created_at=EPOCH,
    )
    stands = state(feasibility_s=5.5, finishing_s=10.0, estimate="60 s buy about 3 heads")
    found = explain(request(), stands, lines, record)
    assert [(each.name, each.trials, each.seconds) for each in found.ladder] == [
        ("feasibility", None, 5.5),
        ("probe", 2, 6.0),
        ("finish", 2, 10.0),
    ]
    assert (found.seconds.feasibility, found.seconds.trials, found.seconds.finish) == (5.5, 40.0, 10.0)
    assert found.finish is not None and found.finish.refit == 1234
    page, text = render(found, request(), stands, lines), told(found)
    for said in ("2 trials are averaged: better in 95 %", "1,234 images", "60 s buy about 3 heads"):
        assert said in page and said in text
    assert "By the clock" in page and "before the trials 5.5, with them 40.0, the finish 10.0" in text
    older = explain(request(), state(), lines)
    assert [each.name for each in older.ladder] == ["probe"] and older.finish is None
    assert "By the clock" not in render(older, request(), state(), lines) and "with them" not in told(older)


def test_by_how_much_networks_miss_the_limits() -> None:
    missed = (
        Excess(
            networks="tf_efficientnet_lite2", of="latency", value=31.4, limit=20, unit="ms", runtime="paper"
        ),
        Excess(networks="resnet50", of="size", value=94.0, limit=47.0, unit="MB"),
    )
    why = "nothing in the space meets the limits"
    stands = state(status=SearchStatus.FAILED, error=why, excesses=missed, notes=("resnet50: 94 MB",))
    found = explain(request(), stands, [])
    assert found.infeasible == missed and (found.status, found.error) == ("failed", why)
    page, text = render(found, request(), stands, []), told(found)
    assert why in page and why in text and "resnet50: 94 MB" in text
    for said in ("limit on latency", "efficientnet_lite2", "1.57 x", "20 ms, measured on paper", "2.00 x"):
        assert said in page
    assert "miss the limit" not in render(explain(request(), state(), []), request(), state(), [])


def test_who_gave_a_place_to_another_search_was_not_behind() -> None:
    lines = [
        trial(0, [0.7]),
        trial(1, [0.8]),
        trial(2, [0.9], state=TrialState.PRUNED),
        trial(3, [0.1], state=TrialState.PRUNED),
    ]
    found = explain(request(), state(), lines)
    assert [each.why for each in found.pruned] == ["shared", "behind"]
    assert "1 of them gave a place to another search instead" in told(found)
    assert "1 of all were not behind" in render(found, request(), state(), lines)


def test_the_clock_of_a_search_that_runs_goes_on() -> None:
    begun = datetime.now(UTC) - timedelta(seconds=30)
    running = state(status=SearchStatus.RUNNING, spent_s=10.0, updated_at=begun)
    assert 40.0 <= explain(request(), running, []).seconds.wall <= request().budget_s
    gone = running.with_(updated_at=EPOCH)
    assert explain(request(), gone, []).seconds.wall == request().budget_s, "its process may be gone"
    assert explain(request(), gone, [trial(3, [0.5, 0.6])]).seconds.wall == 103.0


def test_a_search_without_any_trial_is_explained_too() -> None:
    found = explain(request(), state(status=SearchStatus.QUEUED, spent_s=0.0), [])
    assert (found.winner, found.improvements, found.pruned, found.seconds.first_value) == (None, [], [], None)
    assert headline(found).startswith("No model after 0 trials")
    assert "Too few trials" in render(found, request(), state(), [])


def test_the_page_says_all_of_it_and_escapes_what_is_foreign() -> None:
    lines = ledger(30)
    lines.append(trial(40, [0.1], state=TrialState.PRUNED))
    lines.append(trial(41, [], error="<script>alert(1)</script>"))
    found = explain(request(), state(best_trial=None), lines)
    page = render(found, request(), state(), lines)
    for heading in (
        "Why it won",
        "What mattered",
        "Where the seconds went",
        "What was pruned",
        "What could not be",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=", page), "nothing is loaded from elsewhere"
    assert found.winner is not None and found.winner.trial in page and "01-00040-abcdef" in page


def test_a_real_search(tiny: History) -> None:
    from autovision.search import requests

    for of in tiny.searches:
        asked, stands = requests.get(tiny.store, of.id)
        lines = requests.trials(tiny.store, of.id)
        found = explain(asked, stands, lines, requests.finished(tiny.store, of.id))
        assert found.winner is not None and found.confirmed
        assert found.winner.trial == found.confirmed[0].trial
        assert found.improvements[-1].value >= found.winner.value - 1e-9
        assert found.seconds.features <= sum(line.seconds for line in lines)
        assert found.winner.trial in render(found, asked, stands, lines)


def test_the_page_speaks_of_a_runner_up_only_where_there_is_one_and_of_nobodys_images() -> None:
    point = {"lr": 1e-2, "dropout": 0.3, "head": "linear"}
    alone, two = [trial(0, [0.5], point=point)], [trial(0, [0.5], point=point), trial(1, [0.4])]
    pages = [render(explain(request(), state(), lines), request(), state(), lines) for lines in (alone, two)]
    assert ["runner-up" in page for page in pages] == [False, True]
    assert all("cells" not in re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL) for page in pages)
