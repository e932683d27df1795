"""Which samplers can be asked for, and what is said of those that cannot."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from autovision.errors import InvalidInput
from autovision.search.sampling import samplers
from autovision.space import Choice, Float, Space


class Numbers(Space):
    backbone = Choice("resnet18", "resnet34")
    lr = Float(1e-4, 1e-1, log=True)
    dropout = Float(0.0, 0.5)


class OneNumber(Space):
    backbone = Choice("resnet18", "resnet34")
    lr = Float(1e-4, 1e-1, log=True)
    dropout = Float(0.0, 0.5, when={"backbone": "resnet18"})


MODULE = """
from optuna.samplers import RandomSampler, TPESampler

def seeded(seed): return TPESampler(seed=seed)
def plain(): return RandomSampler()
def wrong(seed): return seed
def needy(seed, more): return RandomSampler(seed=seed)
value = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_samplers_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_named_sampler_can_be_had(name: str) -> None:
    samplers.check(name, Numbers())
    samplers.strategy_of(name, Numbers())


@pytest.mark.parametrize("name", ("seeded", "plain"))
def test_a_users_own_is_found_in_the_current_folder(mine: str, name: str) -> None:
    samplers.check(f"{mine}:{name}", Numbers(), 2)


@pytest.mark.parametrize(
    ("spec", "says"),
    (
        ("tpee", "did you mean 'tpe'"),
        ("nosuchmodule:Sampler", "cannot be imported.*installed where the search runs"),
        ("optuna.samplers:TPESamplr", "no class or function 'TPESamplr'.*did you mean 'TPESampler'"),
        ("MINE:wrong", "is int, which is no optuna.samplers.BaseSampler"),
        ("MINE:needy", "cannot be made with its seed alone.*name a function"),
        ("MINE:value", "has no class or function 'value'"),
        ("a b:c", "not of the form MODULE:NAME"),
    ),
)
def test_what_is_no_sampler_is_refused_with_the_remedy(mine: str, spec: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        samplers.check(spec.replace("MINE", mine), Numbers())
    assert re.search(says, str(refused.value))


def test_cmaes_says_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="has one objective; for several choose tpe, nsga2 or gp"):
        samplers.check("cmaes", Numbers(), 2)
    with pytest.raises(
        InvalidInput, match=r"two parameters or more that are numbers.*'OneNumber' has lr; choose"
    ):
        samplers.check("cmaes", OneNumber())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="pip install cmaes"):
        samplers.check("cmaes", Numbers())
