"""What travels over HTTP. Field names and forms are a contract with callers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, field_validator

from autovision.records.base import Record
from autovision.records.datasets import Labelling, Labels, labels_of
from autovision.records.deployments import EARLIEST
from autovision.records.rollouts import Stage

REQUEST_ID = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}-[0-9a-f]{6,32}")
"""The form of a request id. Nothing else may become part of a store key."""


class Answer(Labelling):
    """The answer to one image."""

    model: str
    """the model version that gave this very answer"""
    label: Labels
    """on the wire `label`, or `labels` of a model that answers any number of classes"""
    probabilities: dict[str, float]
    """class -> probability, in the model's order of classes"""
    request_id: str
    """what a later label names"""


class Feedback(Labelling):
    """A person's word on an answered request: `label`, or `labels` for a model of any number of classes."""

    request_id: Annotated[str, Field(pattern=f"^{REQUEST_ID.pattern}$", max_length=64)]
    label: Labels
    annotator: Annotated[str, Field(min_length=1, max_length=128)] = "unknown"
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    said_at: Annotated[AwareDatetime, Field(ge=EARLIEST)] | None = None
    """when it was said, of words that are sent later or again; None: now"""

    @field_validator("label")
    @classmethod
    def _lengths(cls, label: Labels) -> Labels:
        if not all(1 <= len(name) <= 256 for name in labels_of(label)):
            raise ValueError("a label has 1 to 256 characters")
        return label


class FeedbackReceipt(Record):
    """The labels are stored. Whether their requests were ever captured is not checked here: captures are
    written a moment after the answer, so a label may come first; the two are joined when they are used."""

    accepted: int
    new: int
    """of `accepted`: words that changed what their annotators say; the others repeat it, or were said (`said_at`)
    before it"""


class Problem(Record):
    """An error, as RFC 9457 problem details."""

    type: str
    """`urn:autovision:problem:<kind>`"""
    title: str
    status: int
    detail: str
    request_id: str | None = None


class CaptureStatus(Record):
    """How far capturing has come, on this replica since it started."""

    accepted: int = 0
    """answered requests taken for storing"""
    stored: int = 0
    pending: int = 0
    """taken and not yet stored; 0: all that was taken is in the store"""
    dropped: int = 0
    """lost because the queue was full or the store refused them for good"""
    captured_through: AwareDatetime | None = None
    """when the latest stored request came in"""
    error: str | None = None
    """why storing fails at the moment; None: it does not"""


class FollowStatus(Record):
    """What the server wants to serve, and how far it has come."""

    desired: str | None = None
    """the model that the deployment names; None: not known, or none promoted yet"""
    loading: str | None = None
    """the model that is being loaded at this moment"""
    failed: str | None = None
    """the model that could not be loaded"""
    attempts: int = 0
    """how often loading `failed` was tried in a row"""
    error: str | None = None
    """why the desired model is not served, or why the desired model cannot be known; None: all is well"""
    retry_at: AwareDatetime | None = None
    challenger: str | None = None
    """the model of the rollout that is under way"""
    challenger_error: str | None = None
    """why it is not loaded; None: it is, or is being loaded"""


class ServerInfo(Record):
    """The state of one replica. Counts are since it started."""

    model: str | None
    classes: tuple[str, ...]
    since: AwareDatetime | None
    """when the model began to answer"""
    challenger: str | None = None
    """the model of a rollout, once it is loaded"""
    stage: Stage | None = None
    """what the challenger does; None: there is none"""
    share: float | None = None
    """of requests that it answers, or gets copies of"""
    deployment: str | None
    """None: pinned to one model, nothing is captured and no label is taken"""
    replica: str
    started_at: AwareDatetime
    swaps: int
    """how often a model replaced another"""
    requests: int
    """images asked about, whatever came of it"""
    answered: int
    errors: dict[str, int]
    """kind of problem -> requests"""
    waiting: int
    """images in the queues at this moment"""
    waiting_for_challenger: int = 0
    """of `waiting`"""
    following: FollowStatus
    captures: CaptureStatus | None
    """None: capturing is off"""


class Health(Record):
    """Whether images can be answered."""

    status: Literal["ready", "waiting", "asleep"]
    """asleep: no replica is kept, and the next image wakes one"""
    model: str | None
    following: FollowStatus
    replica: str | None = None
    """who says so; None: the edge, for want of a replica"""
