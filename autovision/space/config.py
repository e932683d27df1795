"""A trial's configuration: everything that a search space may speak about, and nothing else.

A sampled point of a space becomes a strict `TrialConfig` before anything reads it, so that a parameter
that no code reads cannot exist. `resolved()` drops what has no effect, so equal trials compare equal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from autovision.records.base import Record, digest_of

Augmentation = Literal["none", "flip", "dihedral", "crop", "randaugment", "trivialaugment"]
RANDOM_AUGMENTATIONS: tuple[Augmentation, ...] = ("randaugment", "trivialaugment")
"""those that draw their operations at random; the others have a fixed list of views"""
TestTimeAugmentation = Literal["none", "flip", "dihedral"]
Pooling = Literal["avg", "max", "avgmax", "gem", "attention"]
_LATER = ("new_weight", "distill")
"""parameters that came later than the first trials: at their defaults they leave digests as they were"""
ImportedName = Annotated[str, Field(pattern=r"^store:[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class TrialConfig(Record):
    """One complete training configuration."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    # architecture
    backbone: str = "tf_efficientnet_lite0"
    """a timm model name"""
    weights: Literal["pretrained", "random"] | ImportedName = "pretrained"
    """`pretrained`: as published for the backbone; `store:NAME`: weights that were imported under that name;
    `random`: for tests, and for measuring what transfer gives"""
    resolution: int | None = Field(default=None, ge=32, le=1024)
    """input height and width in pixels; None: the backbone's own"""
    drop_stages: int = Field(default=0, ge=0, le=8)
    """stages cut off from the end (elastic depth); 0: the whole backbone"""
    taps: int = Field(default=1, ge=1, le=8)
    """how many of the last kept stages feed the head"""
    pooling: Pooling = "avg"
    """average; maximum; both, concatenated; generalized mean with p = 3 (Radenović et al. 2018); average weighted
    by a learned attention over the positions"""
    head: Literal["linear", "mlp", "cosine", "attention"] = "linear"
    """one layer; one hidden layer; cosine similarity to a learned direction per class, scaled; a learned query that
    attends to all positions of all taps (Zhai et al. 2022), instead of `pooling`"""
    head_width: int = Field(default=256, ge=8, le=4096)
    """hidden units of the `mlp` head, width of the `attention` head"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the head's inputs that are zeroed in training; 0: off"""
    adapters: int = Field(default=0, ge=0, le=12)
    """how many of the frozen stages next to the trained ones get a trained residual bottleneck behind them
    (Rebuffi et al. 2017, Houlsby et al. 2019)"""
    adapter_width: int = Field(default=16, ge=2, le=512)
    """channels of the adapters' bottleneck"""

    # what is trained
    unfreeze: int = Field(default=0, ge=0, le=12)
    """how many of the last kept stages are trained besides the head; 0: the head alone"""
    layer_decay: float = Field(default=0.7, gt=0, le=1)
    """learning rate of each stage relative to the stage above it (discriminative rates)"""
    backbone_lr_ratio: float = Field(default=0.1, gt=0, le=1)
    """learning rate of the topmost unfrozen stage relative to the head's"""
    unfreeze_schedule: Literal["at_once", "gradual"] = "at_once"
    """`gradual`: from the top, one stage more at a time, over the first half of the epochs (Howard & Ruder 2018)"""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """stochastic depth (Huang et al. 2016) of the unfrozen residual blocks, rising to this at the last; 0: off"""
    l2_sp: float = Field(default=0.0, ge=0, le=10)
    """pull of unfrozen weights towards where they started (L2-SP, Li et al. 2018); 0: off"""

    # data
    augmentation: Augmentation = "none"
    """views of each training image: a fixed list (see `autovision.image.VIEWS`), or drawn at random by RandAugment
    (Cubuk et al. 2020) or TrivialAugment (Müller & Hutter 2021)"""
    magnitude: int = Field(default=9, ge=1, le=30)
    """strength of `randaugment`, of 30"""
    views: int = Field(default=4, ge=0, le=64)
    """how many views of a random augmentation are kept, besides the image itself; 0: drawn afresh in every epoch,
    for which the frozen stages are computed anew each time"""
    test_time_augmentation: TestTimeAugmentation = "none"
    """views of an image over which the logits are averaged, in validation, in test and in serving, where each answer
    takes as many times the arithmetic: two for `flip`, eight for `dihedral`"""
    mixup: float = Field(default=0.0, ge=0, le=4)
    """alpha of the Beta distribution (Zhang et al. 2018), on activations; 0: off"""
    cutmix: float = Field(default=0.0, ge=0, le=4)
    """alpha of the Beta distribution (Yun et al. 2019), on activation maps; 0: off"""
    class_weighting: Literal["none", "balanced"] = "none"
    """`balanced` weighs each class in the loss by the inverse of its frequency"""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """each image once an epoch; or as many draws, with every class equally likely"""
    confidence_weighting: bool = False
    """weigh each sample by its label's confidence"""
    new_weight: float = Field(default=1.0, gt=0, le=100)
    """how many times as much an image counts in the loss that is new to the champion, or bears another label than it
    knew; without a champion, new in this version of the data set"""
    distill: float = Field(default=0.0, ge=0, le=1)
    """share of the champion's own answer in the target of each image that it knew, against forgetting (Li & Hoiem
    2016, Buzzega et al. 2020); 0: off"""

    # recipe
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019), or stochastic gradient descent with momentum"""
    lr: float = Field(default=1e-3, gt=0, le=10)
    """peak learning rate of the head"""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """as the optimizer defines it: decoupled for `adamw`, L2 for `sgd`; 0: off"""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """share of the steps in which the learning rate rises to its peak; a cosine brings it to zero in the others"""
    clip_norm: float = Field(default=5.0, ge=0, le=1000)
    """largest norm of the gradient of the head, and of that of the rest; 0: no limit"""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """decay of the exponential moving average of the weights, which is then what is judged and kept; 0: off"""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """cross entropy (binary, for several labels an image); focal loss (Lin et al. 2017)"""
    focal_gamma: float = Field(default=2.0, gt=0, le=10)
    """how much less the focal loss weighs what is right already"""
    logit_adjustment: float = Field(default=0.0, ge=0, le=3)
    """how much of the log frequency of each class is added to its logit in training (Menon et al. 2021); 0: off"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of each target that is spread evenly over all classes; 0: off"""
    epochs: int = Field(default=30, ge=1, le=1000)
    """of the head alone, or of the fine-tuning when `unfreeze` > 0"""
    batch_size: int = Field(default=64, ge=2, le=4096)
    """images per step of the optimizer"""
    patience: int = Field(default=0, ge=0, le=1000)
    """stop after so many epochs without a better value on validation; 0: never"""

    def resolved(self) -> TrialConfig:
        """The same configuration with everything that has no effect set to its default."""
        inert: set[str] = set()
        if self.head not in ("mlp", "attention"):
            inert |= {"head_width"}
        if self.head == "attention":
            inert |= {"pooling"}
        if self.adapters == 0:
            inert |= {"adapter_width"}
        if self.unfreeze == 0:
            inert |= {"backbone_lr_ratio", "unfreeze_schedule", "drop_path", "l2_sp"}
        if self.unfreeze < 2:
            # One stage has none below it that its rate could decay to, nor one to come later.
            inert |= {"layer_decay", "unfreeze_schedule"}
        if not self.needs_maps:
            inert |= {"cutmix"}  # it pastes into maps; a head alone sees pooled vectors
        if self.augmentation not in RANDOM_AUGMENTATIONS:
            inert |= {"views"}
        if self.augmentation != "randaugment":
            inert |= {"magnitude"}
        if self.loss != "focal":
            inert |= {"focal_gamma"}
        defaults = TrialConfig()
        return self.with_(**{name: getattr(defaults, name) for name in inert})

    @property
    def needs_maps(self) -> bool:
        """Whether activations are trained upon, rather than pooled vectors alone."""
        attends = self.head == "attention" or self.pooling == "attention"
        return self.unfreeze > 0 or self.adapters > 0 or attends

    @property
    def digest(self) -> str:
        body = self.resolved().model_dump(mode="json")
        unsaid = [name for name in _LATER if body[name] == type(self).model_fields[name].default]
        return digest_of({name: value for name, value in body.items() if name not in unsaid})


def field_names() -> tuple[str, ...]:
    """The parameters that a search space may name."""
    return tuple(TrialConfig.model_fields)


def check_value(name: str, value: Any) -> Any:
    """`value` as the field `name` would hold it. Raises `pydantic.ValidationError`."""
    return getattr(TrialConfig.model_validate({name: value}), name)
