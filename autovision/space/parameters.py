"""The four kinds of parameter that a search space is made of: frozen values, pure functions of them.

A declaration is only stored here; `autovision.space.declare` checks it, because only there is its name known.
Every other method may rely on a checked declaration.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from typing import Any, ClassVar, Protocol

Value = None | bool | int | float | str
"""what a parameter may hold: a plain value that JSON can carry"""

When = Mapping[str, Any]
"""parameter name -> the value, or the values, that it must have"""

GRID_TOLERANCE = 1e-8
"""how far, in steps, a value may lie beside a stepped `Float`'s grid: samplers add up binary fractions"""


class Suggester(Protocol):
    """The part of an Optuna trial that a space talks to."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


def is_number(value: Any) -> bool:
    """Whether `value` is an int or a float; a bool is neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; a lone surrogate cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def same(a: Any, b: Any) -> bool:
    """Equality that tells True from 1, but not 1 from 1.0."""
    if is_number(a) and is_number(b):
        return bool(a == b)
    return type(a) is type(b) and bool(a == b)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out a whole number of thousands of digits.
        return super().repr_int(x, level) if x.bit_length() < 1024 else f"an int of {x.bit_length()} bits"

    def repr_Float(self, x: Float, level: int) -> str:
        return repr(x)  # these cut their own arguments short

    repr_Integer = repr_Choice = repr_Constant = repr_Float


def shown(value: Any) -> str:
    """`value` as Python would write it, cut short where it is long or deep: it may come from anybody."""
    return _Short().repr(value)


def tidy_when(when: Any) -> Any:
    """A condition with its values as tuples; anything else as it is, for the check to refuse."""
    if not isinstance(when, Mapping):
        return when
    plural = (list, tuple, set, frozenset, range)
    return {name: tuple(values) if isinstance(values, plural) else (values,) for name, values in when.items()}


class _Declaration:
    """What the four kinds share: how they are written."""

    def __repr__(self) -> str:
        arguments = []
        for argument in fields(self):  # type: ignore[arg-type]  # every kind is a dataclass
            value = getattr(self, argument.name)
            if argument.name == "values" and isinstance(value, tuple):
                arguments += [shown(each) for each in value[:20]] + ["…"] * (len(value) > 20)
            elif argument.default is MISSING:
                arguments.append(shown(value))
            elif value is not argument.default:
                arguments.append(f"{argument.name}={shown(value)}")
        return f"{type(self).__name__}({', '.join(arguments)})"


@dataclass(frozen=True, repr=False)
class Float(_Declaration):
    """A real number from `low` to `high`, both included.

    Args:
        low, high: the ends.
        log: draw uniformly in the logarithm; `low` must be above 0.
        step: only low, low + step, … ; `high` must be one of these. Not together with `log`.
        default: the value to try first; None: the middle (the geometric mean when `log`).
        when: parameter name -> value or values; this parameter exists only where all of them hold.
    """

    kind: ClassVar[str] = "float"

    low: float
    high: float
    log: bool = field(default=False, kw_only=True)
    step: float | None = field(default=None, kw_only=True)
    default: float | None = field(default=None, kw_only=True)
    when: When | None = field(default=None, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "when", tidy_when(self.when))

    def start(self) -> float:
        """The value of the space's default point."""
        return self.middle() if self.default is None else self.default

    def middle(self) -> float:
        """The default where none is declared."""
        return self._clip(math.sqrt(self.low * self.high)) if self.log else self.at(0.5)

    def at(self, u: float) -> float:
        """The value at quantile `u`, 0 <= u < 1, of the prior."""
        if self.step is not None:
            return self._on_grid(int(u * (self._steps() + 1)))
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return self._clip(math.exp(low + u * (high - low)))
        return self._clip(self.low + u * (self.high - self.low))

    def holds(self, value: Any) -> bool:
        """Whether `value` can be had: a finite number between the ends, and on the grid if there is one."""
        if not is_number(value) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        position: float = (value - self.low) / self.step
        return abs(position - round(position)) < GRID_TOLERANCE

    def nearest(self, value: Any) -> float:
        """The value closest to `value`; the default for what is no number."""
        if not is_number(value) or value != value:  # NaN
            return self.start()
        clipped = float(self._clip(value))  # in this order: a huge int has no float
        return clipped if self.step is None else self._on_grid(round((clipped - self.low) / self.step))

    def suggest(self, trial: Suggester, name: str) -> float:
        return self.nearest(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))

    def _clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def _steps(self) -> int:
        assert self.step is not None
        return round((self.high - self.low) / self.step)

    def _on_grid(self, k: int) -> float:
        # In decimals, so that the third step of 0.1 is 0.3 and not 0.30000000000000004.
        return float(Decimal(repr(self.low)) + k * Decimal(repr(self.step)))


@dataclass(frozen=True, repr=False)
class Integer(_Declaration):
    """A whole number from `low` to `high`, both included.

    Args:
        low, high: the ends.
        log: draw uniformly in the logarithm; `low` must be above 0.
        default: the value to try first; None: the middle (the geometric mean when `log`), rounded down.
        when: parameter name -> value or values; this parameter exists only where all of them hold.
    """

    kind: ClassVar[str] = "integer"

    low: int
    high: int
    log: bool = field(default=False, kw_only=True)
    default: int | None = field(default=None, kw_only=True)
    when: When | None = field(default=None, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "when", tidy_when(self.when))

    def start(self) -> int:
        """The value of the space's default point."""
        return self.middle() if self.default is None else self.default

    def middle(self) -> int:
        """The default where none is declared."""
        return math.isqrt(self.low * self.high) if self.log else (self.low + self.high) // 2

    def at(self, u: float) -> int:
        """The value at quantile `u`, 0 <= u < 1, of the prior."""
        if not self.log:
            return self.low + int(u * (self.high - self.low + 1))
        # Half a unit beyond each end, so that the ends are drawn as often as their neighbours.
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        return min(max(round(math.exp(low + u * (high - low))), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Whether `value` can be had: a whole number between the ends."""
        return is_number(value) and bool(self.low <= value <= self.high and value == int(value))

    def nearest(self, value: Any) -> int:
        """The value closest to `value`; the default for what is no number."""
        if not is_number(value) or value != value:  # NaN
            return self.start()
        nearest: int = round(min(max(value, self.low), self.high))
        return nearest

    def suggest(self, trial: Suggester, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log)


@dataclass(frozen=True, init=False, repr=False)
class Choice(_Declaration):
    """One of several values that have no order.

    Args:
        values: at least one; None, bool, int, float or str.
        default: the value to try first; None: the first one (so a None that is to come first stands first).
        when: parameter name -> value or values; this parameter exists only where all of them hold.
    """

    kind: ClassVar[str] = "choice"

    values: tuple[Value, ...]
    default: Value = None
    when: When | None = field(default=None, hash=False)

    def __init__(self, *values: Value, default: Value = None, when: When | None = None) -> None:
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "default", default)
        object.__setattr__(self, "when", tidy_when(when))

    def start(self) -> Value:
        """The value of the space's default point."""
        return self.middle() if self.default is None else self.default

    def middle(self) -> Value:
        """The default where none is declared."""
        return self.values[0]

    def at(self, u: float) -> Value:
        """The value at quantile `u`, 0 <= u < 1: all are equally likely."""
        return self.values[int(u * len(self.values))]

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of the values; 1 and 1.0 are the same, 1 and True are not."""
        return any(same(value, own) for own in self.values)

    def nearest(self, value: Any) -> Value:
        """`value` itself if it is one of the values, else the default: there is no order to be near in."""
        return next((own for own in self.values if same(value, own)), self.start())

    def suggest(self, trial: Suggester, name: str) -> Value:
        return self.nearest(trial.suggest_categorical(name, list(self.values)))


@dataclass(frozen=True, repr=False)
class Constant(_Declaration):
    """One fixed value. In a class body a plain value means the same, but for None: write `Constant(None)`."""

    kind: ClassVar[str] = "constant"
    when: ClassVar[None] = None

    value: Value

    def start(self) -> Value:
        """The value of the space's default point."""
        return self.value

    def holds(self, value: Any) -> bool:
        """Whether `value` is the constant."""
        return same(value, self.value)

    def nearest(self, value: Any) -> Value:
        """The constant."""
        return self.value


Parameter = Float | Integer | Choice | Constant

KINDS: dict[str, type[Float] | type[Integer] | type[Choice] | type[Constant]] = {
    kind.kind: kind for kind in (Float, Integer, Choice, Constant)
}
"""the name of each kind in JSON"""


def declaration_of(parameter: Parameter) -> dict[str, Any]:
    """The JSON form: `kind`, and every argument that is not at its default."""
    form: dict[str, Any] = {"kind": parameter.kind}
    for argument in fields(parameter):
        value = getattr(parameter, argument.name)
        if value is argument.default:
            continue
        if argument.name == "when":
            value = {name: list(values) for name, values in sorted(value.items())}
        form[argument.name] = list(value) if isinstance(value, tuple) else value
    return form


def meaning_of(parameter: Parameter) -> dict[str, Any]:
    """The JSON form without a default that would hold anyway: what a fingerprint is taken of."""
    form = declaration_of(parameter)
    if not isinstance(parameter, Constant) and same(parameter.default, parameter.middle()):
        form.pop("default", None)
    return form
