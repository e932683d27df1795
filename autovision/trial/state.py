"""What training changes: the state that a checkpoint holds, and that a resumed trial goes on from."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.trial.data import Inputs
from autovision.trial.loss import log_prior, sample_weights, soft_targets
from autovision.trial.mixing import map_size
from autovision.trial.optim import Ema, make_optimizer
from autovision.trial.world import World


@dataclass(frozen=True)
class Problem:
    """A split to learn from, a split to be judged by."""

    train: Inputs
    validation: Inputs
    positive: int | None
    """the class that F1, precision and recall speak of; None: all alike"""

    @property
    def multi_label(self) -> bool:
        return self.train.labelled.multi_label


@dataclass
class Best:
    """The best epoch so far, kept for early stopping."""

    epoch: int
    value: float
    tensors: dict[str, Tensor]


@dataclass
class Training:
    """Everything that changes while a suffix is trained: what a checkpoint holds.

    Attributes:
        epoch: how many are over.
        accumulate: parts that each batch is computed in, for less memory with the same result.
        loss_sum, loss_steps: of the epochs since the last rung.
    """

    suffix: Suffix
    problem: Problem
    config: TrialConfig
    seed: int
    world: World = field(default_factory=World)
    accumulate: int = 1
    autocast: bool = False
    epoch: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    best: Best | None = None
    network: nn.Module | None = None
    """the suffix, wrapped for the workers that train it together"""

    def __post_init__(self) -> None:
        split = self.problem.train.labelled
        self.device = next(self.suffix.head.parameters()).device
        self.targets = soft_targets(split, self.config.label_smoothing, self.config.distill).to(self.device)
        self.weights = sample_weights(split, self.config).to(self.device)
        self.prior = log_prior(split, self.config).to(self.device)
        self.stages = [p for stage in self.suffix.trained_stages() for p in stage.parameters()]
        self.start = [p.detach().clone() for p in self.stages] if self.config.l2_sp else []
        self.optimizer = make_optimizer(self.suffix, self.config)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.ema = Ema(trained, self.config.ema) if self.config.ema else None
        self.new = [p for p in trained if all(p is not stage for stage in self.stages)]
        layout, shape = self.suffix.input_layout, self.problem.train.prefix.activation_shape
        self.map_size = map_size(shape, layout) if shape else None
