"""What Tune (2.60) does with the actors of trials, where it has to be led: the one module that takes what is private.

With `reuse_actors` Tune holds one idle actor for the next trial, and with it a place, until the search ends or another
one of its trials does (`_ObjectCache.may_keep_one`). A search that has reached its share begins no next trial.

For a searcher of our own Tune asks for no second trial while a first one waits for its actor, which takes seconds to
start; and gives it the actor of whichever trial ends meanwhile, and ends its own. So workers would start one after the
other, and, of trials that are shorter than a start, hardly a second one ever.
"""

from __future__ import annotations

from typing import Any

MOST_STARTING = 64
"""actors that start, or wait for a place, at once"""


def _controller(tune_controller: Any) -> Any:
    # The wrapper that schedulers are given warns of whatever is not on its list.
    return getattr(tune_controller, "_tune_controller", tune_controller)


def release(tune_controller: Any) -> None:
    """End the actors that no trial uses; to be called only while no trial waits for one.

    Args:
        tune_controller: as Tune gives it to a scheduler.
    """
    _controller(tune_controller)._cleanup_cached_actors(force_all=True)


def start_several(tune_controller: Any) -> None:
    """From now on Tune asks for further trials while others wait for their actors."""
    _controller(tune_controller).update_max_pending_trials(MOST_STARTING)


def starts(tune_controller: Any, trial: Any) -> bool:
    """Whether a trial that waits has an actor which has its place and comes up there."""
    controller = _controller(tune_controller)
    actor = controller._trial_to_actor.get(trial)
    return actor is not None and bool(controller._actor_manager.is_actor_started(actor))
