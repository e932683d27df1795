"""What a challenger must show before it may begin to take over: part of a Deployment."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from autovision.errors import InvalidInput
from autovision.records.base import Record
from autovision.records.runtimes import AUTO, check_choice


class GatePolicy(Record):
    """How the gates of `autovision.promotion` judge a challenger, and within which limits it must serve."""

    margin: float = Field(default=0.03, gt=0, allow_inf_nan=False)
    """in the unit of the metric: so much worse is still equal, on all images, a subgroup or a class"""
    max_latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """of one image at a time, on the node that decides; decoding and HTTP not included; None: any"""
    max_memory_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """10⁶ bytes that a process holds at most which serves the model; None: any"""
    max_size_mb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """10⁶ bytes of the model's file of weights; None: any"""
    runtime: str = AUTO
    """that latency and memory are measured on; `auto`: the one that a server would choose"""
    robustness_margin: float | None = Field(default=0.05, gt=0, lt=1)
    """of accuracy on corrupted images: so much worse is still equal; None: they are not looked at"""
    robustness_images: int = Field(default=100, ge=20, le=10_000)
    """of the test split that are corrupted, at most; fewer where a model looks at several views of each"""

    @property
    def measures(self) -> bool:
        """Whether it limits what has to be measured."""
        return self.max_latency_ms is not None or self.max_memory_mb is not None

    @model_validator(mode="after")
    def _runtime_exists(self) -> Self:
        try:
            check_choice(self.runtime)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return self
