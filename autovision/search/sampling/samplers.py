"""Which sampler a search draws its points with: by name, or a user's own by import path."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autovision.errors import InvalidInput, near
from autovision.search.sampling.coordinates import Coordinates, unconditional
from autovision.search.sampling.strategies import FIRST_AT_RANDOM, Cmaes, Random, Strategy, Tpe
from autovision.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS = {
    "tpe": "tree-structured Parzen estimator",
    "random": "at random",
    "cmaes": "CMA-ES for the numbers that every point has, TPE for the rest",
    "nsga2": "NSGA-II, a genetic algorithm, for several objectives",
    "gp": "Gaussian process, for some hundred expensive trials",
}
"""name -> what it is; any other is MODULE:NAME, a class or a function that makes an Optuna sampler"""


def check(sampler: str, space: Space, objectives: int = 1) -> None:
    """Raises `InvalidInput` where a search of the space cannot be done with a sampler here.

    Args:
        objectives: how many.
    """
    if ":" in sampler:
        _own(sampler)(0)
    elif sampler not in SAMPLERS:
        raise InvalidInput(
            f"sampler {sampler!r} is none of {', '.join(SAMPLERS)}; for an Optuna sampler of your own write "
            f"MODULE:NAME{near(sampler, SAMPLERS)}"
        )
    if sampler == "cmaes":
        _check_cmaes(space, objectives)


def strategy_of(sampler: str, space: Space, objectives: int = 1) -> Strategy:
    """The one that a search is to be done with. Raises `InvalidInput` as `check` does."""
    check(sampler, space, objectives)
    coordinates = Coordinates(space)
    match sampler:
        case "tpe":
            return Tpe(coordinates)
        case "random":
            return Random(coordinates)
        case "cmaes":
            return Cmaes(coordinates)
    from autovision.search.sampling import optuna_strategies as optunas  # Optuna: a second

    match sampler:
        case "nsga2":
            return optunas.Nsga2(space, coordinates, objectives)
        case "gp":
            return optunas.Gp(space, coordinates, objectives, FIRST_AT_RANDOM)
    return optunas.OptunaStrategy(space, coordinates, objectives, _own(sampler))


def _check_cmaes(space: Space, objectives: int) -> None:
    if objectives > 1:
        raise InvalidInput("sampler 'cmaes' has one objective; for several choose tpe, nsga2 or gp")
    coordinates = Coordinates(space)
    numbers = [coordinates.axes[i].name for i in unconditional(coordinates.axes)]
    if len(numbers) < 2:
        raise InvalidInput(
            f"sampler 'cmaes' needs two parameters or more that are numbers and have no condition; space "
            f"{space.name!r} has {' and '.join(numbers) or 'none'}; choose tpe"
        )
    if importlib.util.find_spec("cmaes") is None:
        raise InvalidInput("sampler 'cmaes' needs the package cmaes, which is missing; `pip install cmaes`")


def _own(spec: str) -> Callable[[int], BaseSampler]:
    """Makes a user's sampler by a seed, which is left out where none is taken."""
    module_name, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not name.isidentifier():
        raise InvalidInput(
            f"sampler {spec!r} is not of the form MODULE:NAME, such as optuna.samplers:QMCSampler"
        )
    made = _found(spec, module_name, name)
    from optuna.samplers import BaseSampler

    seeded = _takes_seed(made)

    def make(seed: int) -> BaseSampler:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is experimental in name is the user's choice
                sampler = made(seed=seed) if seeded else made()
        except Exception as error:
            raise InvalidInput(
                f"sampler {spec!r} cannot be made with {'its seed alone' if seeded else 'no argument'}: "
                f"{type(error).__name__}: {error}; name a function that takes nothing but `seed` and returns it"
            ) from error
        if not isinstance(sampler, BaseSampler):
            raise InvalidInput(
                f"sampler {spec!r} is {type(sampler).__name__}, which is no optuna.samplers.BaseSampler; name a class "
                "that is one, or a function that returns one"
            )
        return sampler

    return make


def _found(spec: str, module_name: str, name: str) -> Callable[..., Any]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)  # as `python -m` does it
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InvalidInput(
            f"sampler {spec!r}: module {module_name!r} cannot be imported: {type(error).__name__}: {error}; it has to "
            f"be installed where the search runs, or to lie in the folder it runs in ({folder})"
        ) from error
    finally:
        sys.path.remove(folder)
    found = getattr(module, name, None)
    if not callable(found):
        others = [other for other, value in vars(module).items() if callable(value)]
        raise InvalidInput(
            f"sampler {spec!r}: module {module_name!r} has no class or function {name!r}{near(name, others)}"
        )
    return found  # type: ignore[no-any-return]


def _takes_seed(made: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(made).parameters
    except (TypeError, ValueError):
        return False
