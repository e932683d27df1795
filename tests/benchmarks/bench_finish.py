"""What the finish of a search is worth on the solar cells: refit, greedy soup, and a threshold for balanced accuracy.

    python tests/benchmarks/bench_finish.py --json bench-results/ --seeds 0 1 2 3 4

For each seed the cells are split anew (60 % train, 15 % validation, 25 % test, stratified by label and cell type) and
twelve heads on frozen features are trained on train: linear ones and small networks, of three learning rates with and
without dropout. That ledger is finished with and without each part, and every result is asked about test, which chose
nothing. Differences are paired: the same split, the same trials. Only accuracies are measured, so other work on the
machine does not matter.

About five minutes for the first seed on two free cores, which computes the features, and one for each of the others.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import import_solar_cells, options, show, write_json
from safetensors.torch import load as load_tensors
from scipy import stats

from autovision import metrics
from autovision.calibration import fit_temperature
from autovision.decisions import Measure, scores
from autovision.model import bundle
from autovision.model.predictor import probabilities_of
from autovision.records.base import now
from autovision.records.datasets import Split
from autovision.records.searches import SearchRequest
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search.costing.cost import CostModel
from autovision.search.finishing.chosen import choose
from autovision.search.finishing.rule import choose_rule
from autovision.search.select import best_trial
from autovision.space.config import TrialConfig
from autovision.store.local import LocalStore
from autovision.trial.execution import value_of
from autovision.trial.fused import FittedHead, HeadProblem, fit_heads
from autovision.trial.pooled import load_pooled
from autovision.trial.splits import DataSplits
from autovision.trial.tasting import Tasting
from autovision.trial.trial import weights_key
from autovision.trial.workbench import Workbench

FRACTIONS = {Split.TRAIN: 0.60, Split.VALIDATION: 0.15, Split.TEST: 0.25}
BASE = TrialConfig(
    backbone="tf_efficientnet_lite0",
    resolution=224,
    taps=3,
    pooling="avgmax",
    augmentation="flip",
    weight_decay=1e-2,
    confidence_weighting=True,
    epochs=27,
)
HEADS = [
    BASE.with_(head=head, head_width=128, lr=lr, dropout=dropout)
    for head in ("linear", "mlp")
    for lr in (3e-4, 1e-3, 3e-3)
    for dropout in (0.0, 0.3)
]
METRICS = ("accuracy", "balanced_accuracy")
WAYS = {
    "best trial": {"refit": False, "soup": False},
    "refit": {"refit": True, "soup": False},
    "soup": {"refit": False, "soup": True},
    "soup, refit": {"refit": True, "soup": True},
}

Row = dict[str, Any]


def fitted(
    bench: Workbench, splits: DataSplits, configs: Sequence[TrialConfig], seed: int
) -> list[FittedHead]:
    """All heads, trained together on train."""
    source, channels = bench.source(configs[0]), bench.channels(configs[0])
    train, validation = (
        load_pooled(source, split, configs, channels, training=training, deadline=math.inf)
        for split, training in ((splits.train, True), (splits.validation, False))
    )
    problem = HeadProblem(train, validation, channels, splits.positive)
    return fit_heads(configs, problem, seed, math.inf, torch.device("cpu"))


def ledger_of(store: LocalStore, request: SearchRequest, heads: Sequence[FittedHead]) -> list[TrialResult]:
    """What a search would have written down of these heads. They are judged at their last rung."""
    lines = []
    for number, head in enumerate(heads):
        assert head.error is None, head.error
        trial, report, data = f"01-{number:05d}", head.reports[-1], bundle.tensors_file(head.tensors)
        key = weights_key(request.id, trial, data)
        store.put_immutable(key, data)
        point = CurvePoint(
            rung=report.rung,
            epoch=report.epoch,
            seconds=1.0,
            search_s=1.0,
            train_loss=report.train_loss,
            metrics=report.metrics,
        )
        lines.append(
            TrialResult(
                search=request.id,
                trial=trial,
                number=number,
                state=TrialState.COMPLETE,
                config=head.config.model_dump(mode="json"),
                parameters={},
                origin="sampled",
                curve=(point,),
                value=value_of(report.metrics, request.metric),
                metrics=report.metrics,
                weights_key=key,
                seconds=1.0,
                seed=request.seed,
                created_at=now(),
            )
        )
    return lines


def run(store: LocalStore, seed: int, configs: Sequence[TrialConfig], count: int | None) -> list[Row]:
    """One split, finished in every way for every metric."""
    version = import_solar_cells(store, f"solar-{seed}", seed=seed, count=count, fractions=FRACTIONS)
    bench = Workbench(store, torch.get_num_threads())
    splits = bench.splits(version.id)
    heads = fitted(bench, splits, configs, seed)
    rows = []
    for metric in METRICS:
        for way, flags in WAYS.items():
            request = SearchRequest(
                dataset=version.name,
                dataset_version=version.version,
                dataset_digest=version.digest,
                space={},
                budget_s=1e6,
                seed=seed,
                metric=metric,
                **flags,
            )
            ledger = ledger_of(store, request, heads)
            chosen = choose(store, request, ledger, bench, CostModel(bench, splits), math.inf)
            best = best_trial(ledger)
            assert best is not None
            config = TrialConfig.model_validate(best.config)
            judged = _logits(store, bench, splits, Split.VALIDATION, config, chosen.chosen_key)
            truth = splits.validation.truth
            temperature = fit_temperature(judged, truth)
            p = probabilities_of(judged, temperature, multi_label=False)
            rule = choose_rule(Measure(metric), p, truth, splits.positive, version.classes, seed=seed)
            asked = _logits(store, bench, splits, Split.TEST, config, chosen.final_key)
            p = probabilities_of(asked, temperature, multi_label=False)
            decided, labels = scores(rule, p), splits.test.truth
            measure = metrics.METRICS[metric]
            rows.append(
                {
                    "seed": seed,
                    "metric": metric,
                    "way": way,
                    "test_images": len(labels),
                    "default": measure(p, labels, splits.positive),
                    "by_rule": measure(decided, labels, splits.positive),
                    "log_loss": -metrics.neg_log_loss(p, labels),
                    "rule": rule.model_dump(mode="json"),
                    "trials": chosen.trials,
                    "refit_images": chosen.refit.images if chosen.refit else None,
                    "notes": chosen.notes,
                }
            )
    return rows


def _logits(
    store: LocalStore, bench: Workbench, splits: DataSplits, split: Split, config: TrialConfig, key: str
) -> np.ndarray:
    images = splits.validation if split is Split.VALIDATION else splits.test
    return Tasting(bench, images, config).logits(load_tensors(store.get(key).data))


def interval(values: Sequence[float]) -> str:
    """Mean, and Student's 95 % interval of it over seeds."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def report(rows: Sequence[Row]) -> None:
    lines = []
    seeds = sorted({row["seed"] for row in rows})
    for metric in METRICS:
        of = {(row["seed"], row["way"]): row for row in rows if row["metric"] == metric}
        base = [of[seed, "best trial"] for seed in seeds]
        for way in WAYS:
            found = [of[seed, way] for seed in seeds]
            lines.append(
                [
                    metric,
                    way,
                    f"{statistics.fmean(row['default'] for row in found):.4f}",
                    interval([row["default"] - b["default"] for row, b in zip(found, base, strict=True)]),
                    interval([b["log_loss"] - row["log_loss"] for row, b in zip(found, base, strict=True)]),
                    f"{statistics.fmean(row['by_rule'] for row in found):.4f}",
                    interval([row["by_rule"] - row["default"] for row in found]),
                    "/".join(str(len(row["trials"])) for row in found),
                    f"{sum(row['rule']['kind'] != 'default' for row in found)} of {len(found)}",
                ]
            )
    show(
        f"The finish of a search, on {rows[0]['test_images']} test cells of each of {len(seeds)} splits",
        (
            "ranked by",
            "model",
            "test, default rule",
            "against the best trial",
            "less log loss",
            "test, chosen rule",
            "against the default rule",
            "trials in it",
            "rules",
        ),
        lines,
        f"Frozen {BASE.backbone} at {BASE.resolution} px, {len(HEADS)} heads. Intervals are Student's, of paired "
        "differences over seeds, whose test splits overlap.",
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    configs, count = HEADS, None
    if chosen.quick:
        configs, count = [c.with_(resolution=64, epochs=2) for c in HEADS[:3]], 240
    name = "finish-quick" if chosen.quick else "finish"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="autovision-bench-") as folder:
        store = LocalStore(Path(folder))
        for seed in chosen.seeds:
            rows += run(store, seed, configs, count)
            write_json(chosen.json, name, {"rows": rows})  # what is done is kept, if the rest is interrupted
    report(rows)


if __name__ == "__main__":
    main()
