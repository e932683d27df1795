"""A class that the champion does not know, from the first label to the served answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from autovision.model.predictor import Prediction, Predictor
from autovision.promotion import rollout
from autovision.records.deployments import Label, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.models import ModelVersion
from autovision.registry import deployments
from autovision.retraining import request as retraining
from autovision.search import requests
from autovision.store import labels
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def green(folder: Path, n: int, *, seed: int) -> list[bytes]:
    folder.mkdir(parents=True)
    files = []
    for i in range(n):
        pixels = (
            np.random.default_rng(90_000 + 1000 * seed + i).integers(60, 160, (72, 72, 3)).astype(np.int16)
        )
        pixels[..., 1] += 70
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path := folder / f"{i}.png")
        files.append(path.read_bytes())
    return files


def test_it_is_learnt_beside_the_others_promoted_and_answered(
    tiny: History,
    answer_images: Callable[..., list[str]],
    run_search_alone: Callable[..., ModelVersion],
    tmp_path: Path,
) -> None:
    store, champion = tiny.copy(), tiny.models[1]
    policy = RetrainingPolicy(min_labels=20, budget_s=600.0, max_trials=3)
    deployments.create(store, "door", "colours", tiny.space.to_json(), policy)
    deployments.set_gate_policy(store, "door", GatePolicy(robustness_margin=None))
    deployment = deployments.set_champion(store, "door", champion.id, expected=None)
    for request_id in answer_images(store, champion.id, green(tmp_path / "green", 60, seed=0)):
        labels.add(store, "door", Label(request_id=request_id, label="green", received_at=NOW))
    situation = retraining.observe(store, deployment, lambda: NOW)
    assert situation.snapshot.labels_per_class == {"green": 60}
    request = retraining.build(store, deployment, situation, reason="volume", seed=0)
    model = run_search_alone(store, request, Workbench(store, 2))
    assert model.classes == ("blue", "green", "red") and champion.classes == ("blue", "red")
    ledger = requests.trials(store, request.id)
    from_champion = [result for result in ledger if result.origin == "champion"]
    assert len(from_champion) == 2
    assert not [note for result in from_champion for note in result.notes if "does not fit" in note]
    decision = rollout.consider(store, "door", model.id)
    assert decision.accepted, decision.why
    gates = {gate["name"]: gate for gate in decision.numbers["gates"]}
    assert gates["new_class[green]"]["numbers"]["n"] == 15
    assert gates["new_class[green]"]["numbers"]["recall"] > 0.8
    assert gates["not_worse_overall"]["numbers"]["n"] == decision.numbers["n"] - 15
    serving = deployments.get(store, "door").model
    assert serving == model.id
    answers = Predictor.load(store, serving).predict(green(tmp_path / "more", 8, seed=1))
    said = [answer for answer in answers if isinstance(answer, Prediction)]
    assert all(list(each.probabilities) == ["blue", "green", "red"] for each in said)
    assert sum(each.label == "green" for each in said) >= 7
