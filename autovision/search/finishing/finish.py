"""From a ledger to a registered model: choose, assemble, calibrate on validation, evaluate once on test, publish."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.torch import load as load_tensors

from autovision.calibration import fit_temperature
from autovision.dataset import manifest
from autovision.dataset.loader import load_pixels
from autovision.dataset.manifest import Row
from autovision.decisions import Measure
from autovision.errors import AutoVisionError
from autovision.model import backbone as backbones
from autovision.model import bundle
from autovision.model.inference import native_precision
from autovision.model.predictor import Scorer, probabilities_of
from autovision.model.version import read_version
from autovision.provenance import code_version, package_versions
from autovision.records.base import digest_of, now
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.models import DecisionRule, Evaluation, FinishRecord, Lineage, ModelVersion
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.registry.evaluate import Predictions, evaluate_subgroups, store_predictions, truth
from autovision.search.costing.cost import CostModel
from autovision.search.finishing.chosen import choose
from autovision.search.finishing.rule import choose_rule
from autovision.search.select import best_trial
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store
from autovision.trial.splits import DataSplits
from autovision.trial.tasting import Tasting
from autovision.trial.trial import assemble
from autovision.trial.workbench import Workbench

RECALIBRATED = "recalibrated"
"""stands for a trial in the lineage of a model that is its parent with other probabilities"""
_REFERENCE = 400
"""images that drift is measured against, at least, if there are so many that the model was not trained on"""


def evaluated(splits: DataSplits) -> int:
    """How many images finishing a search sends through the network of its model."""
    more = len(splits.validation) if len(splits.test) < _REFERENCE else 0
    return len(splits.test) + more


def finish(
    store: Store,
    request: SearchRequest,
    ledger: list[TrialResult],
    bench: Workbench,
    *,
    cost: CostModel | None = None,
    deadline: float = math.inf,
    beside_champion: bool = True,
) -> ModelVersion:
    """Register what a ledger comes to. The same ledger gives the same version, however often it is called.

    What is averaged and trained again is `chosen.choose`'s work. Temperature and decision rule are fitted to what the
    weights say of validation before they are trained again on it: the refitted ones have seen these images. They are
    kept for the refitted model, which differs from the other by a few more images.

    Args:
        cost: what the search knows of speed; None: nothing yet.
        deadline: seconds since the epoch, by which a refit must be over.
        beside_champion: a re-search's trials are compared with the champion, which may be what is best: recalibrated,
            which is another model then, or as it is, which is the model that is there.

    Raises:
        AutoVisionError: no trial left a model.
    """
    if best_trial(ledger) is None:
        raise AutoVisionError(_nothing(request, ledger))
    splits = bench.splits(f"{request.dataset}@{request.dataset_version}", request.parent_model)
    version = splits.version
    chosen = choose(
        store,
        request,
        ledger,
        bench,
        cost or CostModel(bench, splits),
        deadline,
        beside_champion=beside_champion,
    )
    if chosen.candidate == "unchanged":
        assert request.parent_model is not None
        return read_version(store, request.parent_model)
    origin = _origin(store, request, ledger, chosen)
    config = TrialConfig.model_validate(origin.config)
    network = assemble(bench, config, store.get(chosen.final_key).data, len(version.classes))
    prep, precision = backbones.preprocessing(config), native_precision()
    scorer = Scorer.as_evaluated(network, (prep.height, prep.width), precision, bench.threads)

    rows = {split: _rows(store, version, split) for split in (Split.VALIDATION, Split.TEST)}

    def scored(split: Split) -> tuple[np.ndarray, np.ndarray]:
        pixels = load_pixels(store, [row.image for row in rows[split]], prep, threads=bench.threads)
        return scorer(pixels)

    several = version.multi_label
    labels = truth(rows[Split.VALIDATION], version.classes, multi_label=several)
    # From the features that trials were judged on: the network need not see these images once more.
    judged = Tasting(bench, splits.validation, config).logits(load_tensors(store.get(chosen.chosen_key).data))
    counted = splits.validation.counted
    judged, labels = judged[counted], labels[counted]
    temperature = fit_temperature(judged, labels)
    measure = Measure.of(request.metric, request.costs, version.classes)
    rule = choose_rule(
        measure,
        probabilities_of(judged, temperature, multi_label=several),
        labels,
        splits.positive,
        version.classes,
        groups=splits.validation.counted_groups,
        seed=request.seed,
    )
    logits, reference = scored(Split.TEST)
    probabilities = probabilities_of(logits, temperature, multi_label=several)
    test = Predictions.of(rows[Split.TEST], version.classes, probabilities, multi_label=several, rule=rule)
    # Stages that were trained on an image do not see it as they see new ones: then it is no reference for these.
    if len(splits.test) < _REFERENCE and not (chosen.refit and config.needs_maps):
        reference = np.concatenate([scored(Split.VALIDATION)[1], reference])
    files = {
        bundle.WEIGHTS_FILE: bundle.weights_of(network),
        bundle.REFERENCE_FILE: bundle.reference_bytes(reference),
    }
    lineage = _lineage(request, origin, version, bench, chosen)
    model = ModelVersion(
        id=_model_id(request, files, temperature, rule, lineage),
        dataset=request.dataset,
        classes=version.classes,
        multi_label=several,
        positive_class=version.positive_class,
        preprocessing=prep,
        temperature=temperature,
        decision=rule,
        metric=request.metric,
        costs=request.costs,
        precision=precision,
        metrics=_evaluations(test, version, measure),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        size_bytes=len(files[bundle.WEIGHTS_FILE]),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        lineage=lineage,
        created_at=now(),
    )
    store_predictions(store, model.id, version, Split.TEST, test)
    bundle.publish(store, model, files)
    return read_version(store, model.id)


@dataclass(frozen=True)
class _Origin:
    """What the weights came of."""

    trial: str
    config: dict[str, Any]
    seed: int
    soup: tuple[str, ...]


def _origin(
    store: Store, request: SearchRequest, ledger: Sequence[TrialResult], chosen: FinishRecord
) -> _Origin:
    """The best trial; or what the champion came of, which no trial of this search did."""
    if chosen.candidate == "recalibrated":
        assert request.parent_model is not None
        champion = read_version(store, request.parent_model).lineage
        return _Origin(RECALIBRATED, champion.config, champion.seed, champion.soup)
    best = next(result for result in ledger if result.trial == chosen.trials[0])
    soup = chosen.trials if len(chosen.trials) > 1 else ()
    return _Origin(
        best.trial, TrialConfig.model_validate(best.config).model_dump(mode="json"), best.seed, soup
    )


def _rows(store: Store, version: DatasetVersion, split: Split) -> list[Row]:
    return sorted(
        (row for row in manifest.read(store, version) if row.split == split), key=lambda row: row.image
    )


def _evaluations(test: Predictions, version: DatasetVersion, measure: Measure) -> dict[str, Evaluation]:
    return evaluate_subgroups(
        test,
        version.classes,
        version.positive_class,
        dataset=version.id,
        split=Split.TEST,
        measure=measure,
    )


def _lineage(
    request: SearchRequest,
    origin: _Origin,
    version: DatasetVersion,
    bench: Workbench,
    chosen: FinishRecord,
) -> Lineage:
    config = TrialConfig.model_validate(origin.config)
    weights = bench.source(config).loaded.info
    return Lineage(
        search=request.id,
        trial=origin.trial,
        dataset=version.id,
        dataset_digest=version.digest,
        backbone=config.backbone,
        backbone_weights_digest=weights.digest,
        backbone_weights_source=weights.source,
        backbone_weights_license=weights.license,
        space_fingerprint=Space.from_json(request.space).fingerprint,
        config=config.model_dump(mode="json"),
        seed=origin.seed,
        code_version=code_version(),
        packages=package_versions(),
        parents=(request.parent_model,) if request.parent_model else (),
        soup=origin.soup,
        refit=chosen.refit,
        notes=chosen.notes,
    )


def _model_id(
    request: SearchRequest, files: dict[str, bytes], temperature: float, rule: DecisionRule, lineage: Lineage
) -> str:
    digests = {
        name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name == bundle.WEIGHTS_FILE
    }
    made_of = [digests, temperature, rule.model_dump(mode="json"), lineage.model_dump(mode="json")]
    return f"{request.dataset}-m-{digest_of(made_of)[:10]}"


def _nothing(request: SearchRequest, ledger: Sequence[TrialResult]) -> str:
    errors = Counter((result.error or "no error given").strip().splitlines()[-1] for result in ledger)
    if not ledger:
        return (
            f"search {request.id} could not begin a single trial in its budget of {request.budget_s:g} s; "
            "give it more seconds (features that were computed are kept)"
        )
    listed = "; ".join(f"{count} x {error}" for error, count in errors.most_common(3))
    return (
        f"search {request.id}: none of {len(ledger)} trials gave a model within {request.budget_s:g} s ({listed}); "
        "submit it again with a larger budget, or mend what the errors name"
    )
