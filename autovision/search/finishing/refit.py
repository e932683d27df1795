"""The winner trained once more, on train and validation together: what was chosen is not chosen again."""

from __future__ import annotations

from collections.abc import Sequence

from safetensors.torch import load as load_tensors

from autovision.errors import AutoVisionError
from autovision.features.compute import OutOfTime
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search.costing.cost import CostModel
from autovision.space.config import TrialConfig
from autovision.trial.data import views_of
from autovision.trial.execution import value_of
from autovision.trial.step import NotFinite
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench


def epochs_of(result: TrialResult, metric: str) -> int:
    """After how many epochs a trial's weights were what it left.

    Those of its best rung; of heads that were trained together (`TrialResult.batch`) those of their last one, as what
    is stored of these, and their value, is what they ended with.
    """
    if not result.curve:
        return TrialConfig.model_validate(result.config).epochs
    if result.batch is not None:
        left = result.curve[-1]
    else:
        left = max(result.curve, key=lambda point: value_of(point.metrics, metric))
    return left.judged_epoch or left.epoch


def predicted_s(cost: CostModel, request: SearchRequest, results: Sequence[TrialResult]) -> float:
    """Seconds that training all of these again will take; several workers that trained a trial are one here."""
    total, known = 0.0, set()
    for result in results:
        config = TrialConfig.model_validate(result.config)
        features = views_of(config) not in known  # members of a soup read the same features
        known.add(views_of(config))
        again = cost.refit_s(config, features=False)
        total += again * request.workers_per_trial + (cost.refit_s(config) - again if features else 0.0)
    return total


def refit(
    bench: Workbench, request: SearchRequest, result: TrialResult, *, deadline: float
) -> tuple[bytes, int]:
    """Tensors of a trial that is trained again with its seed on train and validation, and how many images that are.

    Raises:
        AutoVisionError: it came to nothing; the message says why.
    """
    trial = Trial(
        bench,
        f"{request.dataset}@{request.dataset_version}",
        TrialConfig.model_validate(result.config),
        result.seed,
        deadline,
        initial=request.parent_model if result.origin == "champion" else None,
        champion=request.parent_model,
    )
    try:
        trained = trial.refit(epochs_of(result, request.metric))
    except NotFinite as error:
        raise AutoVisionError(f"it diverged: {error}") from error
    except OutOfTime:
        raise AutoVisionError("the budget ended before it was trained") from None
    except Exception as error:
        # Whatever it is, there is a model already: the search must not fail of what would only better it.
        raise AutoVisionError(f"it failed: {error or type(error).__name__}") from error
    if not all(tensor.isfinite().all() for tensor in load_tensors(trained).values()):
        raise AutoVisionError("it diverged: its weights are not finite")
    return trained, len(trial.splits.train)
