"""The JSON form that others script against, and the records that it comes from."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest

from autovision.demo.result import DemoResult, Example, Outcome, Prediction, Stage
from autovision.errors import InvalidImage
from autovision.records.models import Interval
from autovision.report.search_view import SearchView

FIGURES = {"accuracy": float, "balanced_accuracy": float, "f1": float, "n": int}


def test_json_has_exactly_the_promised_keys_and_types(result: DemoResult) -> None:
    form = json.loads(json.dumps(result.to_demo_json(), allow_nan=False))
    assert type(form["seed"]) is int
    assert form["budget_s"] == 120.0
    assert form["stages"] == {stage.name: stage.seconds for stage in result.stages}
    for side in ("before", "after"):
        assert type(form[side]["model"]) is str
        for cell_type in ("mono", "poly"):
            for name, kind in FIGURES.items():
                assert type(form[side][cell_type][name]) is kind, (side, cell_type, name)
    for cell_type in ("mono", "poly"):
        assert type(form["drift"][cell_type]["alarm"]) is bool
        assert type(form["drift"][cell_type]["score"]) is float
    assert form["requests"]["sent"] == 640
    assert form["requests"]["failed"] == 0
    assert [(each["what"], each["why"]) for each in form["decisions"]] == [
        (each.what, each.why) for each in result.decisions
    ]
    assert form["trials"] == [24, 19]


def test_json_carries_the_numbers_of_the_evaluations(result: DemoResult) -> None:
    form = result.to_demo_json()
    assert form["before"]["poly"]["accuracy"] == 0.305
    assert form["after"]["poly"]["accuracy"] == 0.798
    assert form["after"]["poly"]["accuracy_interval"] == pytest.approx([0.764, 0.832])
    assert form["after"]["mono"]["n"] == 268
    assert form["after"]["model"] == "solar-9f8e7d"


def test_json_drift_is_that_of_the_worst_window(result: DemoResult) -> None:
    drift = result.to_demo_json()["drift"]
    assert drift["mono"] == {"alarm": False, "score": 0.00031, "threshold": 0.0031, "windows": 2, "alarms": 0}
    assert drift["poly"]["alarm"] is True
    assert drift["poly"]["score"] == 0.0942


def test_json_without_windows_and_second_search(tell: Any, result: DemoResult) -> None:
    form = tell(drift=(), searches=result.searches[:1]).to_demo_json()
    assert form["trials"] == [24, 0]
    assert form["drift"]["poly"]["alarm"] is False
    assert form["drift"]["poly"]["score"] is None


def test_json_has_null_where_a_figure_is_undefined(tell: Any, result: DemoResult) -> None:
    nan = Interval(value=math.nan, low=math.nan, high=math.nan)
    side = result.before.with_(mono=result.before.mono.model_copy(update={"f1": nan}))
    form = json.loads(json.dumps(tell(before=side).to_demo_json(), allow_nan=False))
    assert form["before"]["mono"]["f1"] is None


def test_stages_of_one_name_add_up(tell: Any) -> None:
    stages = [Stage(name="serve", began_s=0, seconds=2), Stage(name="serve", began_s=5, seconds=3)]
    told = tell(stages=stages)
    assert told.to_demo_json()["stages"] == {"serve": 5.0}
    assert told.total_s == 8.0


def test_result_survives_its_own_json(result: DemoResult) -> None:
    again = DemoResult.model_validate_json(result.to_json())
    assert again == result
    assert again.examples[0].image.startswith(b"\x89PNG")


def test_best_so_far_only_rises_and_ends_at_the_best(result: DemoResult) -> None:
    view = result.searches[0]
    best = view.best_so_far()
    assert [x for x, _ in best] == sorted(x for x, _ in best)
    assert all(a < b for (_, a), (_, b) in itertools.pairwise(best))
    assert best[-1][1] == view.state.best_value


def test_best_so_far_ignores_other_metrics_and_nan(result: DemoResult) -> None:
    view = result.searches[0]
    trial = next(trial for trial in view.trials if len(trial.curve) > 2)
    curve = (
        trial.curve[0].model_copy(update={"metrics": {"f1": 0.99}}),
        trial.curve[1].model_copy(update={"metrics": {"accuracy": math.nan}}),
        trial.curve[2].model_copy(update={"metrics": {"accuracy": 0.5}}),
    )
    only = view.model_copy(update={"trials": (trial.model_copy(update={"curve": curve}),)})
    assert only.best_so_far() == ((curve[2].search_s, 0.5),)


def test_a_search_without_a_best_trial_has_no_winner(result: DemoResult) -> None:
    view: SearchView = result.searches[0]
    assert view.winner is not None
    assert view.with_(state=view.state.with_(best_trial=None)).winner is None


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("intact", "defective", Outcome.FIXED),
        ("defective", "intact", Outcome.BROKEN),
        ("defective", "defective", Outcome.BOTH_RIGHT),
        ("intact", "intact", Outcome.BOTH_WRONG),
    ],
)
def test_outcome_of_an_example(result: DemoResult, before: str, after: str, outcome: Outcome) -> None:
    example = Example(
        image=result.examples[0].image,
        cell_type="poly",
        truth="defective",
        before=Prediction(label=before, probability=0.6),
        after=Prediction(label=after, probability=0.7),
    )
    assert example.outcome is outcome


def test_an_example_that_is_no_image_is_refused(result: DemoResult) -> None:
    fields = {name: getattr(result.examples[0], name) for name in Example.model_fields}
    with pytest.raises(InvalidImage, match="neither PNG nor JPEG"):
        Example.model_validate({**fields, "image": b"<svg onload=alert(1)>"})
