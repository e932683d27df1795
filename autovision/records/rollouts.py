"""Rollouts: how a challenger takes over the traffic step by step, and what its arm of the traffic did meanwhile."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from autovision.records.base import Record

LATENCY_EDGES_S: tuple[float, ...] = tuple(0.001 * 2 ** (step / 2) for step in range(27))
"""upper edges of the latency histogram's buckets, from 1 ms to 8 s; a last bucket has all that took longer"""


class Stage(StrEnum):
    """What a challenger does before it is champion."""

    SHADOW = "shadow"
    """it answers copies of requests; its answers are compared, and never returned"""
    CANARY = "canary"
    """it answers a share of the callers"""


class Step(Record):
    """One step of a rollout, which ends when both have been reached."""

    stage: Stage
    share: float = Field(gt=0, le=1)
    """of requests that the challenger answers, or, as a shadow, gets copies of"""
    requests: int = Field(ge=0)
    """that the challenger answers in this step at least"""
    seconds: float = Field(ge=0)
    """that it lasts at least"""


class RolloutPolicy(Record):
    """How a challenger that is better on held-out images comes to serve."""

    approval: Literal["automatic", "manual", "both"] = "automatic"
    """who lets it begin: the gates; a person, whatever the gates say; or a person, once the gates have passed it"""
    shadow_requests: int = Field(default=0, ge=0)
    """requests that it answers as a shadow first; 0 with `shadow_s` 0: it never is one"""
    shadow_s: float = Field(default=0.0, ge=0)
    shadow_share: float = Field(default=1.0, gt=0, le=1)
    """of requests that a shadow gets copies of: each costs as much as one that is answered"""
    canary: tuple[float, ...] = ()
    """shares of the traffic that it gets one after the other; none: it takes over at once"""
    step_requests: int = Field(default=100, ge=0)
    """that it answers at each share, at least"""
    step_s: float = Field(default=300.0, ge=0)
    """how long each share lasts, at least"""
    false_alarm: float = Field(default=0.01, gt=0, lt=1)
    """probability that a challenger which is as good is ever rolled back, however often it is looked at"""
    error_margin: float = Field(default=0.01, gt=0, lt=1)
    """so much larger the share of its failed or slow requests, or of its wrong answers, may be"""
    latency_ratio: float = Field(default=2.0, ge=1.4)
    """a request of the challenger that takes so many times as long is slow; judged in steps of the root of two"""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not all(0 < share < 1 for share in self.canary):
            raise ValueError(
                f"the shares of a canary lie between 0 and 1, not {self.canary}; all is the champion's"
            )
        if any(later <= earlier for earlier, later in pairwise(self.canary)):
            raise ValueError(
                f"the shares of a canary rise, so that no caller goes back and forth, not {self.canary}"
            )
        return self

    def steps(self) -> tuple[Step, ...]:
        """What a rollout goes through; none: the challenger takes over at once."""
        shadow = Step(
            stage=Stage.SHADOW, share=self.shadow_share, requests=self.shadow_requests, seconds=self.shadow_s
        )
        return (
            *([shadow] if self.shadow_requests or self.shadow_s else []),
            *(
                Step(stage=Stage.CANARY, share=share, requests=self.step_requests, seconds=self.step_s)
                for share in self.canary
            ),
        )


class Rollout(Record):
    """A challenger on its way to be champion: part of a Deployment."""

    id: str
    """of the decision that began it"""
    model: str
    steps: tuple[Step, ...] = Field(min_length=1)
    """as the policy was when it began"""
    at: int = 0
    """index of the step that it is in"""
    answered_before: int = 0
    """requests that the challenger had answered when this step began"""
    false_alarm: float
    error_margin: float
    latency_ratio: float
    began_at: AwareDatetime
    step_began_at: AwareDatetime

    @property
    def step(self) -> Step:
        return self.steps[self.at]

    @property
    def last(self) -> bool:
        """Whether this is the last step."""
        return self.at == len(self.steps) - 1

    def after(self, answered: int, at: datetime) -> Rollout:
        """In the next step, which begins when the challenger has answered so many requests."""
        return self.with_(at=self.at + 1, answered_before=answered, step_began_at=at)


class ArmCounts(Record):
    """What one arm of the traffic did since a rollout began."""

    answered: int = 0
    failed: int = 0
    """the model raised an error, or took longer than is waited for; images that cannot be decoded are no failures"""
    latency: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_S) + 1)
    """answered requests by `LATENCY_EDGES_S`"""

    def __add__(self, other: ArmCounts) -> ArmCounts:
        return ArmCounts(
            answered=self.answered + other.answered,
            failed=self.failed + other.failed,
            latency=tuple(a + b for a, b in zip(self.latency, other.latency, strict=True)),
        )


class ReplicaCounts(Record):
    """What one replica counted since a rollout began; it writes its own record anew, and nobody else does."""

    rollout: str
    replica: str
    stable: ArmCounts = ArmCounts()
    challenger: ArmCounts = ArmCounts()
    compared: int = 0
    """requests that champion and shadow both answered"""
    agreed: int = 0
    """of these, with the same label"""
    dropped: int = 0
    """copies for the shadow that there was no room for"""
    unloadable: str | None = None
    """why the challenger cannot be loaded here, after several attempts"""
    at: AwareDatetime
