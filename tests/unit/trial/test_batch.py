"""Heads that are trained together as one assignment."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
import torch
from safetensors.torch import load

from autovision.space.config import TrialConfig
from autovision.trial.assignment import Assignment, Head
from autovision.trial.batch import HeadBatch
from autovision.trial.execution import Execution
from autovision.trial.trial import assemble
from autovision.trial.workbench import Workbench

BASE = TrialConfig(backbone="test_resnet", weights="random", resolution=64, epochs=9, batch_size=16)
CONFIGS = [
    BASE,
    BASE.with_(lr=1e-2, head="mlp", head_width=16),
    BASE.with_(lr=3e-3, pooling="avgmax", epochs=4),
    BASE.with_(lr=2e-3, label_smoothing=0.1),
    BASE.with_(lr=1e-4, epochs=1),
    BASE.with_(lr=5e-3, dropout=0.3),
]


def batch_of(task: Assignment, configs: list[TrialConfig], **changes: Any) -> Assignment:
    heads = tuple(Head(trial=f"t-{n}", number=n, config=config) for n, config in enumerate(configs))
    return task.with_(trial="t-0", config=configs[0], heads=heads, **changes)


def test_one_report_tells_of_every_head_what_it_would_have_told_alone(
    bench: Workbench, task: Assignment
) -> None:
    task = batch_of(task, CONFIGS)
    result = HeadBatch(bench, task).step()
    assert (result["outcome"], result["done"]) == ("complete", True)
    told = json.loads(result["heads"])
    assert len(told) == len(CONFIGS)
    assert result["objective"] == max(each["objective"] for each in told)
    for each, head in zip(told, task.heads, strict=True):
        alone = Execution(bench, task.with_(heads=(), config=head.config, trial="alone"))
        reports = [alone.step()]
        while not reports[-1]["done"]:
            reports.append(alone.step())
        points = [json.loads(report["point"]) for report in reports]
        assert [point["epoch"] for point, _ in each["points"]] == [point["epoch"] for point in points]
        for (point, objective), report, single in zip(each["points"], reports, points, strict=True):
            assert objective == pytest.approx(report["objective"], abs=1e-3)
            assert point["metrics"] == pytest.approx(single["metrics"], abs=1e-2)
    seconds = [point["seconds"] for each in told for point, _ in each["points"][-1:]]
    assert sum(seconds) <= result["seconds"] + 1e-6


def test_the_best_heads_leave_weights_that_make_the_network_again(bench: Workbench, task: Assignment) -> None:
    told = json.loads(HeadBatch(bench, batch_of(task, CONFIGS)).step()["heads"])
    kept = [n for n, each in enumerate(told) if each["weights_key"]]
    ranked = sorted(range(len(told)), key=lambda n: -told[n]["objective"])
    assert set(kept) == set(ranked[:4])
    splits = bench.splits("colours@1")
    for n in kept:
        data = bench.store.get(told[n]["weights_key"]).data
        network = assemble(bench, CONFIGS[n], data, len(splits.version.classes))
        mine = {name.removeprefix("head."): t for name, t in load(data).items() if name.startswith("head.")}
        for name, tensor in network.head.state_dict().items():
            assert torch.equal(tensor, mine[name])


def test_a_head_that_diverges_fails_alone(bench: Workbench, task: Assignment) -> None:
    wild = BASE.with_(optimizer="sgd", lr=10.0, weight_decay=1.0, clip_norm=0.0, epochs=30)
    told = json.loads(HeadBatch(bench, batch_of(task, [BASE, wild])).step()["heads"])
    assert told[0]["outcome"] == "complete"
    if told[1]["error"]:
        assert (told[1]["outcome"], told[1]["objective"], told[1]["weights_key"]) == ("failed", None, None)


@pytest.mark.parametrize(
    ("changes", "outcome", "said"),
    [
        ({"dataset": "none@1"}, "failed", "none"),
        ({"metric": "novelty"}, "complete", "novelty"),
        ({"deadline": 0.0, "must_report": False}, "stopped", "the budget ended"),
    ],
)
def test_a_failure_is_a_result(
    changes: dict[str, Any], outcome: str, said: str, bench: Workbench, task: Assignment
) -> None:
    elsewhere = [BASE.with_(resolution=96), BASE.with_(resolution=96, lr=1e-2)]
    result = HeadBatch(bench, batch_of(task, elsewhere, **changes)).step()
    assert (result["outcome"], result["done"]) == (outcome, True)
    errors = (
        [result.get("error")] if "heads" not in result else [e["error"] for e in json.loads(result["heads"])]
    )
    assert all(said in error for error in errors)
    assert math.isnan(result["objective"])


def test_at_the_deadline_heads_are_judged_as_they_are(bench: Workbench, task: Assignment) -> None:
    HeadBatch(bench, batch_of(task, CONFIGS)).step()
    soon = batch_of(task, [c.with_(epochs=900) for c in CONFIGS], deadline=time.time() + 0.3)
    told = json.loads(HeadBatch(bench, soon.with_(must_report=False)).step()["heads"])
    assert {each["outcome"] for each in told} == {"stopped"}
    assert all(each["points"] for each in told)
