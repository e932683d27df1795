"""Seconds at the end of a budget that belong to finishing the best configuration so far, not to more trials."""

from __future__ import annotations

from dataclasses import dataclass

from autovision.records.searches import SearchRequest
from autovision.search.costing.cost import CostModel
from autovision.search.finishing import confirm
from autovision.space.config import TrialConfig
from autovision.trial import folds

_EVALUATION_SHARE = 0.25
_REGISTERING_S = 5.0
_REFIT_SHARE = 0.2
_CONFIRM_SHARE = 0.1
_BESIDE_SHARE, _BESIDE_S = 0.1, 6.0
"""of asking the champion and judging the best trials beside it"""


@dataclass(frozen=True)
class Reserve:
    """What to set aside; each part is at most a share of the budget, for a search is to have trials, too.

    Attributes:
        default: stands for the best as long as there is none.
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

    def __call__(self, best: TrialConfig | None) -> float:
        """Seconds for choosing, training again and evaluating."""
        config = best or self.default
        beside_s = min(_BESIDE_SHARE * self.budget_s, _BESIDE_S) if self.request.parent_model else 0.0
        return self.evaluation_s(config) + self._refit_s(config) + self._confirm_s(config) + beside_s

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
        champion = self.request.parent_model is not None  # of which a head is cross-validated, too
        seconds = 2 * confirm.LOADING_S + (confirm.MOST + champion) * confirm.seconds(self.cost.head_s(head))
        return min((1 + champion / 2) * _CONFIRM_SHARE * self.budget_s, seconds)
