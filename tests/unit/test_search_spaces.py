"""The shipped search spaces: complete, described, sound, and every parameter of them does something."""

from __future__ import annotations

import inspect
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import search_spaces
from autovision.space import Choice, Constant, Float, Integer, Space, TrialConfig, load_space
from autovision.space.reference import parameter_table

SHIPPED: list[type[Space]] = [getattr(search_spaces, name) for name in search_spaces.__all__]
FOLDER = Path(search_spaces.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")

each_space = pytest.mark.parametrize("space", SHIPPED, ids=lambda space: space.name)


def points(space: type[Space], n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [space.default(), *(space.sample(rng) for _ in range(n))]


def some_values(parameter: Float | Integer | Choice) -> list[Any]:
    if isinstance(parameter, Choice):
        return list(parameter.values)
    return [parameter.low, parameter.high]


def without_effect(space: type[Space]) -> dict[str, Any]:
    """Parameters of which two values give the same resolved configuration somewhere, with such a point."""
    silent: dict[str, Any] = {}
    for point in points(space, 60):
        for name in point:
            parameter = space.parameters[name]
            assert not isinstance(parameter, Constant)
            values = some_values(parameter)
            # A change may wake up or put to sleep the children of the parameter; projection fills those in.
            others = [space.project({**point, name: value}) for value in values]
            configs = {space.config(other).digest for other in others if other is not None}
            if len(configs) < len(values):
                silent[name] = point
    return silent


# ----------------------------------------------------------------------------------------- what is shipped


def test_every_module_of_the_folder_is_shipped_and_has_a_short_name() -> None:
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert modules == {space.name.lower() for space in SHIPPED}
    for space in SHIPPED:
        assert space.__module__ == f"search_spaces.{space.name.lower()}"
        assert load_space(space.name.lower()) == space()
        assert load_space(f"{space.__module__}:{space.name}") == space()


@each_space
def test_a_docstring_has_the_command_the_cost_and_the_occasion(space: type[Space]) -> None:
    for heading in ("Run:", "Costs:", "Pick it"):
        assert heading in space.doc
    command = re.search(r"autovision search submit DATASET --space (\S+) --budget-s (\d+) --wait", space.doc)
    assert command is not None
    assert load_space(command[1]) == space()


@each_space
def test_it_travels_as_json(space: type[Space]) -> None:
    assert Space.from_json(space.to_json()) == space()


def test_all_differ() -> None:
    assert len({space.fingerprint for space in SHIPPED}) == len(SHIPPED)


# -------------------------------------------------------------------------------- every parameter has effect


@each_space
def test_every_parameter_changes_the_resolved_configuration_wherever_it_is_active(space: type[Space]) -> None:
    searched = {name for name, each in space.parameters.items() if not isinstance(each, Constant)}
    assert set().union(*points(space, 60)) == searched, "every condition is met by some point"
    assert without_effect(space) == {}


@each_space
def test_every_constant_is_in_the_configuration(space: type[Space]) -> None:
    for point in points(space, 20):
        config = space.config(point)
        for name, parameter in space.parameters.items():
            if isinstance(parameter, Constant):
                assert getattr(config, name) == parameter.value


@each_space
def test_a_configuration_leads_back_to_its_point(space: type[Space]) -> None:
    for point in points(space, 60):
        assert space.project(space.config(point)) == point


def test_a_parameter_without_effect_would_be_found() -> None:
    class Silent(Space):
        unfreeze = Integer(0, 1)
        head_width = Integer(64, 128)
        layer_decay = Float(0.1, 0.5)
        backbone_lr_ratio = Float(0.1, 0.5, when={"unfreeze": 1})

    assert without_effect(Silent).keys() == {"head_width", "layer_decay"}


# ------------------------------------------------------------------------------------ sound for backbones


def backbones_of(space: type[Space]) -> list[str]:
    parameter = space.parameters["backbone"]
    return [
        str(value) for value in (parameter.values if isinstance(parameter, Choice) else (parameter.start(),))
    ]


@each_space
def test_every_backbone_is_known_to_timm_and_has_pretrained_weights(space: type[Space]) -> None:
    import timm

    pretrained = {name.split(".")[0] for name in timm.list_models(pretrained=True)}
    for name in backbones_of(space):
        assert timm.is_model(name)
        assert name in pretrained


def largest(space: type[Space], name: str) -> int:
    parameter = space.parameters[name]
    return parameter.high if isinstance(parameter, Integer) else int(str(parameter.start()))


@each_space
def test_no_point_cuts_off_unfreezes_or_taps_more_stages_than_there_are(space: type[Space]) -> None:
    import timm

    from autovision.model.stages import stages_of

    for name in backbones_of(space):
        kept = len(stages_of(timm.create_model(name))) - largest(space, "drop_stages")
        assert largest(space, "unfreeze") <= kept
        assert largest(space, "taps") <= kept


@each_space
def test_a_backbone_of_fixed_size_is_given_no_other(space: type[Space]) -> None:
    import timm

    for point in points(space, 60):
        config = space.config(point)
        own = timm.get_pretrained_cfg(config.backbone)
        if own is not None and own.fixed_input_size:
            assert config.resolution in (None, own.input_size[-1])


# ------------------------------------------------------------------------------------------------ README.md


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_readme_says_of_each_space_when_to_pick_it() -> None:
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\((\w+\.py)\) \| `\w+` \|", README, flags=re.MULTILINE))
    assert rows == {space.name: f"{space.name.lower()}.py" for space in SHIPPED}
    assert all((FOLDER / file).is_file() for file in rows.values())


def test_the_example_of_the_readme_works_and_has_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = code_blocks()[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    (tmp_path / "mine.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    space = load_space("mine:Mine")
    assert space.contains({"backbone": "resnet18", "unfreeze": 0, "lr": 0.001})
    assert space.config(space.default()).batch_size == 64


def test_the_other_examples_of_the_readme_work() -> None:
    for block in code_blocks()[1:]:
        namespace: dict[str, Any] = {"__name__": "example"}
        exec(block, namespace)
        made = [
            value for value in namespace.values() if inspect.isclass(value) and value.__module__ == "example"
        ]
        assert made
        assert all(made_space.default() for made_space in made)


ODD: dict[str, Any] = {
    "backbone": "resnet18", "weights": "random", "resolution": 96, "drop_stages": 3, "taps": 3,
    "pooling": "gem", "head_width": 8, "dropout": 0.3, "adapter_width": 5, "layer_decay": 0.11,
    "backbone_lr_ratio": 0.22, "unfreeze_schedule": "gradual", "drop_path": 0.12, "l2_sp": 0.13,
    "magnitude": 3, "views": 7, "test_time_augmentation": "dihedral",
    "mixup": 0.44, "cutmix": 0.33, "class_weighting": "balanced",
    "sampling": "balanced", "confidence_weighting": True, "optimizer": "sgd", "lr": 0.5, "weight_decay": 0.3,
    "warmup": 0.4, "clip_norm": 1.5, "ema": 0.6, "focal_gamma": 3.3, "logit_adjustment": 0.7,
    "label_smoothing": 0.17, "epochs": 77, "batch_size": 17, "patience": 9,
    "new_weight": 3.5, "distill": 0.35,
}  # fmt: skip
"""a value besides the default of every parameter that decides about no other one"""


def test_the_conditions_that_the_readme_names_are_those_of_the_configuration() -> None:
    """`resolved()` drops exactly what the table of conditions lists."""
    table = README.split("leaves them at their defaults:")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    deciding = {
        "head": ("linear", "mlp", "cosine", "attention"),
        "unfreeze": (0, 1, 2),
        "adapters": (0, 1),
        "augmentation": ("flip", "trivialaugment", "randaugment"),
        "loss": ("cross_entropy", "focal"),
    }
    assert ODD.keys() | deciding.keys() == set(TrialConfig.model_fields)
    dropped, kept = set(), set()
    for values in itertools.product(*deciding.values()):
        config = TrialConfig.model_validate({**dict(zip(deciding, values, strict=True)), **ODD})
        resolved = config.resolved()
        dropped |= {name for name in ODD if getattr(resolved, name) != ODD[name]}
        kept |= {name for name in ODD if getattr(resolved, name) == ODD[name]}
    assert named == dropped
    assert kept == set(ODD), "a parameter never has any effect"


def test_the_table_of_the_readme_is_the_one_made_from_the_code() -> None:
    table = README.split("<!-- parameters -->")[1].split("<!-- end of parameters -->")[0].strip()
    assert table == parameter_table(), "run `python -m autovision.space.reference` and put its output there"
