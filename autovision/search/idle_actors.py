"""Giving places back to other searches: Tune keeps the actor of a trial that ended, although no trial may follow.

With `reuse_actors` Tune (2.60) holds one idle actor for the next trial, and with it a place, until the search ends or
another one of its trials does (`_ObjectCache.may_keep_one`). A search that has reached its share begins no next trial.
There is no public way to let go of that actor; this is the only module that takes the other.
"""

from __future__ import annotations

from typing import Any


def release(tune_controller: Any) -> None:
    """End the actors that no trial uses; to be called only while no trial waits for one.

    Args:
        tune_controller: as Tune gives it to a scheduler.
    """
    # The wrapper that schedulers are given warns of whatever is not on its list.
    controller = getattr(tune_controller, "_tune_controller", tune_controller)
    controller._cleanup_cached_actors(force_all=True)
