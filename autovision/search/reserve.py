"""Seconds at the end of a budget that belong to finishing the best configuration so far, not to more trials."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from autovision.errors import WeightsUnavailable
from autovision.records.searches import SearchRequest
from autovision.registry.corruptions import KINDS
from autovision.search.costing.cost import CostModel
from autovision.search.finishing import confirm, robust
from autovision.space.config import TrialConfig
from autovision.trial import folds

_EVALUATION_SHARE = 0.25
_REGISTERING_S = 5.0
_REFIT_SHARE = 0.2
_CONFIRM_SHARE = 0.1
_BESIDE_SHARE, _BESIDE_S = 0.2, 6.0
"""of judging the best trials beside a champion; its features, where the search has not made them, take more"""


@dataclass(frozen=True)
class Reserve:
    """What to set aside; each part is at most a share of the budget, for a search is to have trials, too.

    Attributes:
        default: stands for the best as long as there is none.
        champion: configuration of the model that is to be succeeded; None: there is none.
        images: that the winner is evaluated on.
        budget_s: all that is left.
        threads: of the process that finishes.
    """

    request: SearchRequest
    cost: CostModel
    default: TrialConfig
    images: int
    budget_s: float
    threads: int
    champion: TrialConfig | None = None

    def __call__(self, best: TrialConfig | None) -> float:
        """Seconds for choosing, training again and evaluating."""
        config = best or self.default
        return (
            self.evaluation_s(config)
            + self._refit_s(config)
            + self._confirm_s(config)
            + self._beside_s(config)
        )

    def evaluation_s(self, config: TrialConfig) -> float:
        """Seconds for evaluating and registering alone."""
        seconds = self.cost.evaluation_s(config, self.images, threads=self.threads)
        return min(_EVALUATION_SHARE * self.budget_s, _REGISTERING_S + seconds)

    def _refit_s(self, config: TrialConfig) -> float:
        return min(_REFIT_SHARE * self.budget_s, self.cost.refit_s(config)) if self.request.refit else 0.0

    def _confirm_s(self, config: TrialConfig) -> float:
        if not self.request.confirm:
            return 0.0
        # Heads are judged once more where the best is no head, too: it has to be better than they are.
        head = config if folds.can_be(config) else self.default.with_(unfreeze=0, adapters=0)
        seconds = 2 * confirm.LOADING_S + confirm.MOST * confirm.seconds(self.cost.head_s(head))
        return min(_CONFIRM_SHARE * self.budget_s, seconds)

    def _beside_s(self, config: TrialConfig) -> float:
        """For what a champion says: of validation, and by cross-validation of train where it is a head.

        And for what both say of corrupted images, where gates will look at these.
        """
        if self.champion is None:
            return 0.0
        seconds = _BESIDE_S
        if self.request.robustness_margin is not None:
            corrupted = robust.MOST * len(KINDS)
            for seen in {_backbone(each): each for each in (config, self.champion)}.values():
                seconds += self.cost.evaluation_s(seen, corrupted, threads=self.threads)
        with suppress(WeightsUnavailable):  # then it will not be asked
            seconds += self.cost.predict(self.champion, epochs=0).features_s
            if self.request.confirm and folds.can_be(self.champion):
                seconds += confirm.LOADING_S + confirm.seconds(self.cost.head_s(self.champion))
        return min(_BESIDE_SHARE * self.budget_s, seconds)


def _backbone(config: TrialConfig) -> tuple[str, str, int | None]:
    return config.backbone, config.weights, config.resolution
