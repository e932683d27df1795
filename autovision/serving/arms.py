"""Who answers a request: the champion, or the challenger of a rollout, and who is only asked along.

A caller with a key is always on the same side, and stays with the challenger as its share rises: what decides is a hash
of the rollout and the key, which is below the share or not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from autovision.records.deployments import CapturePolicy, Deployment
from autovision.records.models import Preprocessing
from autovision.records.rollouts import Rollout, Stage
from autovision.serving.predicting import Served


@dataclass(frozen=True)
class Wanted:
    """What a deployment wants to be served.

    Attributes:
        champion: None: not known, or none was promoted yet.
        rollout: under way; None: there is none.
        captures: what is kept of the requests.
    """

    champion: str | None = None
    rollout: Rollout | None = None
    captures: CapturePolicy = field(default_factory=CapturePolicy)

    @property
    def models(self) -> tuple[str, ...]:
        """All that are to be loaded, the champion first."""
        found = (self.champion, self.rollout.model if self.rollout else None)
        return tuple(dict.fromkeys(model for model in found if model is not None))


def wanted_of(deployment: Deployment) -> Wanted:
    return Wanted(deployment.model, deployment.rollout, deployment.capture_policy)


@dataclass(frozen=True)
class Arms:
    """What answers at this moment. It is replaced as a whole, so that a request sees one state of it.

    Attributes:
        stable: the champion, or what was it before while a new one is loaded; None: nothing is loaded yet.
        challenger: of the rollout, loaded; None: there is none, or it is not loaded yet.
        rollout: that the challenger belongs to.
        unloadable: why the challenger is not loaded, after several attempts.
        captures: what is kept of the requests.
    """

    stable: Served | None = None
    challenger: Served | None = None
    rollout: Rollout | None = None
    unloadable: str | None = None
    captures: CapturePolicy = field(default_factory=CapturePolicy)

    def is_captured(self, request: str) -> bool:
        """Whether a request is among those that are kept."""
        return position("captures", request) < self.captures.share

    def is_canary(self, key: str) -> bool:
        """Whether the challenger answers the caller with this key."""
        return self._takes(Stage.CANARY, key)

    def is_shadowed(self, key: str) -> bool:
        """Whether the challenger gets a copy of the request with this key."""
        return self._takes(Stage.SHADOW, key)

    @property
    def is_shadow(self) -> bool:
        """Whether nobody waits for what the challenger says."""
        return self.rollout is not None and self.rollout.step.stage is Stage.SHADOW

    @property
    def preprocess_alike(self) -> bool:
        """Whether pixels for the champion are pixels for the challenger, too."""
        served = [each for each in (self.stable, self.challenger) if each is not None]
        return len({_geometry(each.predictor.model.preprocessing) for each in served}) == 1

    def _takes(self, stage: Stage, key: str) -> bool:
        rollout = self.rollout
        if self.challenger is None or rollout is None or rollout.step.stage is not stage:
            return False
        return position(rollout.id, key) < rollout.step.share


def _geometry(prep: Preprocessing) -> tuple[object, ...]:
    """All of it that is not done inside the network."""
    return prep.height, prep.width, prep.crop_pct, prep.crop_mode, prep.interpolation


def position(rollout: str, key: str) -> float:
    """Where a key stands among all, from 0 to 1: evenly spread, and otherwise in every rollout."""
    digest = hashlib.blake2b(f"{rollout}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
