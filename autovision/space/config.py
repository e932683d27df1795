"""A trial's configuration: everything that a search space may speak about, and nothing else.

A sampled point of a space becomes a strict `TrialConfig` before anything reads it, so that a parameter
that no code reads cannot exist. `resolved()` drops what has no effect, so equal trials compare equal.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from autovision.records import Record, digest_of

Augmentation = Literal["none", "flip", "dihedral", "crop"]
Pooling = Literal["avg", "max", "avgmax", "gem"]


class TrialConfig(Record):
    """One complete training configuration."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    # architecture
    backbone: str = "tf_efficientnet_lite0"
    """a timm model name"""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random` is for tests and for measuring what transfer gives"""
    resolution: int | None = Field(default=None, ge=32, le=1024)
    """input height and width in pixels; None: the backbone's own"""
    drop_stages: int = Field(default=0, ge=0, le=8)
    """stages cut off from the end (elastic depth); 0: the whole backbone"""
    taps: int = Field(default=1, ge=1, le=8)
    """how many of the last kept stages feed the head"""
    pooling: Pooling = "avg"
    """average; maximum; both, concatenated; generalized mean with p = 3 (Radenović et al. 2018)"""
    head: Literal["linear", "mlp", "cosine"] = "linear"
    """one layer; one hidden layer; cosine similarity to a learned direction per class, scaled"""
    head_width: int = Field(default=256, ge=8, le=4096)
    """hidden units of the `mlp` head"""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """share of the head's inputs that are zeroed in training; 0: off"""

    # what is trained
    unfreeze: int = Field(default=0, ge=0, le=12)
    """how many of the last kept stages are trained besides the head; 0: the head alone"""
    layer_decay: float = Field(default=0.7, gt=0, le=1)
    """learning rate of each stage relative to the stage above it (discriminative rates)"""
    backbone_lr_ratio: float = Field(default=0.1, gt=0, le=1)
    """learning rate of the topmost unfrozen stage relative to the head's"""

    # data
    augmentation: Augmentation = "none"
    """deterministic views of each training image: see `autovision.image.VIEWS`"""
    mixup: float = Field(default=0.0, ge=0, le=4)
    """alpha of the Beta distribution (Zhang et al. 2018), on activations; 0: off"""
    cutmix: float = Field(default=0.0, ge=0, le=4)
    """alpha of the Beta distribution (Yun et al. 2019), on activation maps; 0: off"""
    class_weighting: Literal["none", "balanced"] = "none"
    """`balanced` weighs each class in the loss by the inverse of its frequency"""
    confidence_weighting: bool = False
    """weigh each sample by its label's confidence"""

    # recipe
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW (Loshchilov & Hutter 2019), or stochastic gradient descent with momentum"""
    lr: float = Field(default=1e-3, gt=0, le=10)
    """peak learning rate of the head"""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """as the optimizer defines it: decoupled for `adamw`, L2 for `sgd`; 0: off"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """share of each target that is spread evenly over all classes; 0: off"""
    epochs: int = Field(default=30, ge=1, le=1000)
    """of the head alone, or of the fine-tuning when `unfreeze` > 0"""
    batch_size: int = Field(default=64, ge=2, le=4096)
    """images per step of the optimizer"""

    def resolved(self) -> TrialConfig:
        """The same configuration with everything that has no effect set to its default."""
        inert: set[str] = set()
        if self.head != "mlp":
            inert |= {"head_width"}
        if self.unfreeze == 0:
            # CutMix needs activation maps; a head alone sees pooled vectors.
            inert |= {"layer_decay", "backbone_lr_ratio", "cutmix"}
        defaults = TrialConfig()
        return self.with_(**{name: getattr(defaults, name) for name in inert})

    @property
    def digest(self) -> str:
        return digest_of(self.resolved().model_dump(mode="json"))


def field_names() -> tuple[str, ...]:
    """The parameters that a search space may name."""
    return tuple(TrialConfig.model_fields)


def check_value(name: str, value: Any) -> Any:
    """`value` as the field `name` would hold it. Raises `pydantic.ValidationError`."""
    return getattr(TrialConfig.model_validate({name: value}), name)
