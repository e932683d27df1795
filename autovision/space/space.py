"""A search space: a class whose attributes are the parameters.

    class Mine(Space):
        '''Small backbones, heads only.'''
        backbone = Choice("resnet18", "tf_efficientnet_lite0")
        unfreeze = Integer(0, 2)
        lr = Float(1e-4, 1e-2, log=True)
        backbone_lr_ratio = Float(0.02, 0.5, log=True, when={"unfreeze": (1, 2)})
        batch_size = 64

A space is data: it travels as JSON, and reading it back runs no code. A *point* of it is a dictionary that
holds a value for each active parameter that is no constant, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from pydantic import ValidationError

from autovision.errors import InvalidSpace, near
from autovision.records.base import digest_of
from autovision.space import wire
from autovision.space.config import TrialConfig
from autovision.space.declare import normal_form
from autovision.space.parameters import (
    Constant,
    Parameter,
    Suggester,
    Value,
    declaration_of,
    meaning_of,
    same,
    shown,
)

if TYPE_CHECKING:
    import numpy as np

Point = dict[str, Any]
"""parameter name -> value, of the active parameters that are no constants"""


class Space:
    """The base of all search spaces. Subclass it; every method works on the class and on an instance alike.

    A subclass of a space inherits its parameters, overrides and adds; a name set to None is removed.
    Defining a class that is not valid raises `InvalidSpace`.
    """

    name: ClassVar[str] = "Space"
    doc: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, Parameter]] = MappingProxyType({})
    """in the order of sampling: parents before children, otherwise as TrialConfig's fields stand"""
    fingerprint: ClassVar[str] = ""
    """SHA-256, in hex, of what can be drawn: not of the name, the docstring or the order of declaration"""
    _own: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._own = MappingProxyType(_declared_in(cls))
        cls.name = cls.__name__
        cls.doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
        cls.parameters = MappingProxyType(normal_form(cls.name, _inherited(cls)))
        cls.fingerprint = digest_of({name: meaning_of(each) for name, each in cls.parameters.items()})

    def __init__(self) -> None:
        if not self.parameters:
            raise InvalidSpace(
                f"space {self.name!r} declares no parameter; add one, such as lr = Float(1e-4, 1e-2)"
            )

    # ------------------------------------------------------------------------------------------ as data

    @classmethod
    def to_json(cls) -> dict[str, Any]:
        """The space as JSON-able data."""
        return {
            "format": wire.FORMAT,
            "name": cls.name,
            "doc": cls.doc,
            "parameters": {name: declaration_of(each) for name, each in cls.parameters.items()},
        }

    @staticmethod
    def from_json(data: Any) -> Space:
        """The space that `to_json` wrote. The data may come from anybody: it is checked, and runs nothing.

        Raises:
            InvalidSpace: it is not the JSON form of a valid space.
        """
        name, doc, declared = wire.parse(data)
        # Before the class is made, so that no name from outside ever becomes an attribute of one unchecked.
        checked = normal_form(name, declared)
        made: type[Space] = type(name, (Space,), {"__doc__": doc, "__module__": __name__, **checked})
        made.doc = doc
        return made()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        return (self.name, self.doc, self.fingerprint) == (other.name, other.doc, other.fingerprint)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[Any, ...]:
        return Space.from_json, (self.to_json(),)

    def __repr__(self) -> str:
        return f"<space {self.name}: {', '.join(self.parameters)}>"

    # ------------------------------------------------------------------------------------------- points

    @classmethod
    def default(cls) -> Point:
        """The point to try first: every active parameter at its default."""
        return cls._walk(lambda _, parameter: parameter.start())

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Point:
        """A point drawn from the prior. Equal spaces draw equal points from equal states of `rng`."""
        return cls._walk(lambda _, p: p.value if isinstance(p, Constant) else p.at(float(rng.random())))

    @classmethod
    def suggest(cls, trial: Suggester) -> Point:
        """A point asked of an Optuna trial. Only active parameters are asked for, and constants never."""
        return cls._walk(lambda name, p: p.value if isinstance(p, Constant) else p.suggest(trial, name))

    @classmethod
    def contains(cls, point: Mapping[str, Any]) -> bool:
        """Whether `point` holds exactly the active parameters, with values that they allow."""
        try:
            cls.check(point)
        except InvalidSpace:
            return False
        return True

    @classmethod
    def check(cls, point: Mapping[str, Any]) -> Point:
        """`point` in its normal form (a 1 for a real parameter becomes 1.0, an almost-grid value the grid's).

        Raises:
            InvalidSpace: a parameter is unknown, inactive, missing, or its value is not allowed.
        """
        if not isinstance(point, Mapping):
            raise InvalidSpace(f"a point of space {cls.name!r} is a dictionary, not {shown(point)}")

        def held(name: str, parameter: Parameter) -> Value:
            if isinstance(parameter, Constant):
                return parameter.value
            if name not in point:
                cls._refuse(name, f"is missing; it must be in {parameter!r}")
            if not parameter.holds(point[name]):
                cls._refuse(name, f"is {shown(point[name])}; it must be in {parameter!r}")
            return parameter.nearest(point[name])

        checked = cls._walk(held)
        for name in point:
            if name not in checked:
                cls._refuse(name, cls._why_not(name))
        return checked

    @classmethod
    def config(cls, point: Mapping[str, Any]) -> TrialConfig:
        """The resolved configuration of a point; what the space does not name is at TrialConfig's default.

        Raises:
            InvalidSpace: as `check`.
        """
        constants = {name: p.value for name, p in cls.parameters.items() if isinstance(p, Constant)}
        return TrialConfig.model_validate({**constants, **cls.check(point)}).resolved()

    @classmethod
    def project(cls, config: TrialConfig | Mapping[str, Any]) -> Point | None:
        """The point of this space nearest to a configuration from elsewhere; None if it lacks its backbone.

        Numbers are clipped; a value that a `Choice` does not have becomes its default. Of a dictionary the
        missing keys are at this space's defaults, so a point of this space comes back unchanged.

        Raises:
            InvalidSpace: `config` is no (part of a) TrialConfig.
        """
        given = config.model_dump() if isinstance(config, TrialConfig) else cls._part(config)
        point = cls._walk(lambda name, p: p.nearest(given[name]) if name in given else p.start())
        return point if given.get("backbone") in (None, cls.config(point).backbone) else None

    # ------------------------------------------------------------------------------------------ helpers

    @classmethod
    def _walk(cls, value_of: Callable[[str, Parameter], Value]) -> Point:
        """A point built parents first: `value_of(name, parameter)` is called for the active parameters."""
        values: dict[str, Value] = {}
        for name, parameter in cls.parameters.items():
            if _active(parameter, values):
                values[name] = value_of(name, parameter)
        return {
            name: value for name, value in values.items() if not isinstance(cls.parameters[name], Constant)
        }

    @staticmethod
    def _part(config: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that a partial configuration names, checked."""
        try:
            read = TrialConfig.model_validate(config)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(map(str, problem["loc"])) or "configuration"
            raise InvalidSpace(
                f"cannot project {field} = {shown(problem['input'])}: {problem['msg']}; "
                "give a TrialConfig, or a dictionary of some of its fields"
                f"{near(field, TrialConfig.model_fields)}"
            ) from error
        return {name: getattr(read, name) for name in read.model_fields_set}

    @classmethod
    def _refuse(cls, name: str, fault: str) -> NoReturn:
        raise InvalidSpace(f"point of space {cls.name!r}: {shown(name)} {fault}")

    @classmethod
    def _why_not(cls, name: Any) -> str:
        """Why a point must not hold `name`, and what to do about it."""
        match cls.parameters.get(name):
            case None:
                return f"is no parameter of the space; leave it out{near(str(name), cls.parameters)}"
            case Constant(value):
                return f"is the constant {value!r}, which a point does not hold; leave it out"
            case parameter:
                return f"is only there when {_conditions(parameter)}; leave it out"


def _active(parameter: Parameter, values: Mapping[str, Value]) -> bool:
    conditions = parameter.when or {}
    return all(
        parent in values and any(same(values[parent], wanted) for wanted in allowed)
        for parent, allowed in conditions.items()
    )


def _conditions(parameter: Parameter) -> str:
    return " and ".join(
        f"{parent!r} is {' or '.join(map(repr, allowed))}"
        for parent, allowed in (parameter.when or {}).items()
    )


def _declared_in(cls: type[Space]) -> dict[str, Any]:
    """The attributes that a class body declares; one underscore in front keeps a name out of the space."""
    bare = [name for name in inspect.get_annotations(cls) if name not in cls.__dict__ and name[:1] != "_"]
    if bare:
        raise InvalidSpace(
            f"space {cls.__name__!r}, parameter {bare[0]!r} = nothing: it is only annotated; "
            f"give it a value, such as {bare[0]} = Choice(...)"
        )
    return {name: value for name, value in vars(cls).items() if name[:1] != "_"}


def _inherited(cls: type[Space]) -> dict[str, Any]:
    """What a class declares together with what its bases do; a name set to None is taken out again."""
    merged: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, value in vars(base).get("_own", {}).items():
            if value is not None:
                merged[name] = value
            elif base is not cls:
                merged.pop(name, None)
            elif merged.pop(name, None) is None:
                raise InvalidSpace(
                    f"space {cls.__name__!r}, parameter {name!r} = None: nothing of that name is inherited; "
                    f"drop the line, or for the value None write Constant(None){near(name, merged)}"
                )
    return merged
