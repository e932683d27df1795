"""Checking what a search space declares, and putting it into its one normal form.

The same check serves a class body and JSON from a stranger: nothing is taken on trust, and every message
names the parameter, its value and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, NoReturn

from pydantic import ValidationError

from autovision.errors import InvalidSpace, near
from autovision.space.config import check_value, field_names
from autovision.space.parameters import (
    Choice,
    Constant,
    Float,
    Integer,
    Parameter,
    Value,
    When,
    is_number,
    is_text,
    same,
    shown,
)

MAX_STEPS = 1_000_000
"""of a stepped `Float`: beyond it the grid would be finer than its tolerance"""


def normal_form(space: str, declared: Mapping[str, Any]) -> dict[str, Parameter]:
    """The checked parameters, parents before children and otherwise in the order of TrialConfig's fields.

    That order is not the one of declaration, so equal spaces draw equal points from equal seeds.

    Args:
        space: the space's name, for the messages.
        declared: name -> parameter, or a plain value, which is a constant.

    Raises:
        InvalidSpace: anything is wrong.
    """
    known = {name: _Checker(space, name, value).checked() for name, value in declared.items()}
    for name, parameter in known.items():
        if not isinstance(parameter, Constant) and parameter.when is not None:
            when = _Checker(space, name, parameter).checked_when(parameter.when, known)
            known[name] = _under(parameter, when)
    return {name: known[name] for name in _parents_first(space, known)}


class _Checker:
    """The check of one parameter; it knows what its messages are about."""

    def __init__(self, space: str, name: str, declared: Any) -> None:
        self.space, self.name = space, name
        self.declared: Any = declared

    def refuse(self, fault: str, remedy: str) -> NoReturn:
        raise InvalidSpace(
            f"space {self.space!r}, parameter {self.name!r} = {shown(self.declared)}: {fault}; {remedy}"
        )

    def checked(self) -> Parameter:
        """The parameter with its values as TrialConfig holds them; conditions are checked later."""
        self.check_name()
        match self.declared:
            case Float() | Integer() as parameter:
                return self.checked_range(parameter)
            case Choice() as parameter:
                return self.checked_choice(parameter)
            case Constant(value):
                return Constant(self.checked_value(value))
            case list() | tuple() | set() | frozenset() as values:
                written = ", ".join(map(shown, list(values)[:6]))
                self.refuse("several values are no constant", f"to search them write Choice({written})")
            case value:
                return Constant(self.checked_value(value))

    def check_name(self) -> None:
        if self.name not in field_names():
            self.refuse(
                f"{self.name!r} is no field of TrialConfig",
                f"use one of {', '.join(field_names())}{near(self.name, field_names())}",
            )

    def checked_value(self, value: Any) -> Value:
        """`value` as TrialConfig's field holds it; nothing is converted but a whole number to a real one."""
        if type(value) not in (type(None), bool, int, float, str):
            self.refuse(
                f"{shown(value)} is of type {type(value).__name__}",
                "use a plain value (None, bool, int, float, str), Float, Integer or Choice",
            )
        if isinstance(value, float) and not math.isfinite(value):
            self.refuse(f"{value!r} is not finite", "use a finite number")
        if isinstance(value, str) and not is_text(value):
            self.refuse(f"{shown(value)} cannot be written as UTF-8", "use a text without lone surrogates")
        try:
            held = check_value(self.name, value)
        except ValidationError as error:
            reasons = dict.fromkeys(
                _lower_first(problem["msg"]) for problem in error.errors(include_url=False)
            )
            self.refuse(f"TrialConfig refuses {shown(value)}: {', or '.join(reasons)}", "use such a value")
        if type(held) is float and is_number(value):
            return held + 0.0  # turns -0.0 into 0.0
        if type(held) is not type(value):
            wanted = type(held).__name__
            better = f"use {'Integer' if wanted == 'int' else 'Choice'}"
            self.refuse(
                f"{shown(value)} is of type {type(value).__name__}, and TrialConfig wants {wanted}",
                better if isinstance(self.declared, Float | Integer) else f"write {held!r}",
            )
        return held  # type: ignore[no-any-return]

    def checked_choice(self, parameter: Choice) -> Choice:
        if not isinstance(parameter.values, tuple) or not parameter.values:
            self.refuse("it has no values", "give at least one, as in Choice('a', 'b')")
        values = self.distinct(map(self.checked_value, parameter.values))
        if parameter.default is not None and not any(same(parameter.default, value) for value in values):
            self.refuse(
                f"its default {shown(parameter.default)} is none of its values",
                "add it to them or choose one",
            )
        default = None if parameter.default is None else self.checked_value(parameter.default)
        return Choice(*values, default=default, when=parameter.when)

    def distinct(self, values: Iterable[Value]) -> list[Value]:
        seen: list[Value] = []
        for value in values:
            if any(same(value, other) for other in seen):
                self.refuse(f"the value {shown(value)} stands there twice", "give each value once")
            seen.append(value)
        return seen

    def checked_range(self, parameter: Float | Integer) -> Float | Integer:
        low, high = self.number(parameter, "low"), self.number(parameter, "high")
        if low >= high:
            self.refuse(
                f"low {shown(low)} is not below high {shown(high)}",
                f"write {self.name} = {shown(low)} for a constant" if low == high else "swap them",
            )
        if not isinstance(parameter.log, bool):
            self.refuse(f"log is {shown(parameter.log)}", "use True or False")
        if parameter.log and low <= 0:
            self.refuse(
                f"a logarithmic range cannot begin at {shown(low)}", "raise low above 0 or leave out log"
            )
        for end in (low, high):
            self.checked_value(end)
        checked: Float | Integer
        if isinstance(parameter, Float):
            checked = replace(parameter, low=low, high=high, step=self.checked_step(parameter, low, high))
        else:
            checked = replace(parameter, low=int(low), high=int(high))
        return self.checked_default(checked)

    def checked_default(self, parameter: Float | Integer) -> Float | Integer:
        if parameter.default is None:
            return parameter
        default = self.number(parameter, "default")
        if not parameter.holds(default):
            grid = (
                f" in steps of {parameter.step!r}" if isinstance(parameter, Float) and parameter.step else ""
            )
            self.refuse(
                f"its default {shown(default)} is not within {parameter.low!r} to {parameter.high!r}{grid}",
                f"move it there, for instance to {parameter.nearest(default)!r}",
            )
        return replace(parameter, default=parameter.nearest(default))  # type: ignore[arg-type]

    def number(self, parameter: Float | Integer, argument: str) -> float:
        value = getattr(parameter, argument)
        if isinstance(parameter, Integer) and (not isinstance(value, int) or isinstance(value, bool)):
            self.refuse(f"{argument} {shown(value)} is not a whole number", "write an int, or use Float")
        if not is_number(value) or (isinstance(value, float) and not math.isfinite(value)):
            self.refuse(f"{argument} {shown(value)} is not a finite number", "write an int or a float")
        if isinstance(parameter, Integer):
            return value  # type: ignore[no-any-return]
        try:
            return float(value) + 0.0
        except OverflowError:
            self.refuse(f"{argument} {shown(value)} is too large for a float", "use a smaller number")

    def checked_step(self, parameter: Float, low: float, high: float) -> float | None:
        if parameter.step is None:
            return None
        step = self.number(parameter, "step")
        if step <= 0:
            self.refuse(f"step {shown(step)} is not above 0", "use a positive step or leave it out")
        if parameter.log:
            self.refuse(
                f"step {shown(step)} cannot be had together with log=True", "leave out one of the two"
            )
        if not (high - low) / step <= MAX_STEPS:
            self.refuse(
                f"steps of {shown(step)} are more than {MAX_STEPS}", "use a larger step or leave it out"
            )
        exact_low, exact_high, exact_step = (Decimal(repr(number)) for number in (low, high, step))
        if rest := (exact_high - exact_low) % exact_step:
            self.refuse(
                f"{shown(low)} to {shown(high)} is not a whole number of steps of {shown(step)}",
                f"use {float(exact_high - rest + exact_step)!r} as high, or another step",
            )
        return step

    def checked_when(self, when: Any, known: Mapping[str, Parameter]) -> When:
        """Conditions with their values as the parents hold them, in the parents' order."""
        if not isinstance(when, Mapping) or not when:
            self.refuse(
                f"when is {shown(when)}",
                "write a condition such as when={'unfreeze': (1, 2)} or leave it out",
            )
        return {
            parent: self.condition(parent, values, known)
            for parent, values in sorted(when.items(), key=lambda item: str(item[0]))
        }

    def condition(
        self, parent: Any, values: tuple[Any, ...], known: Mapping[str, Parameter]
    ) -> tuple[Value, ...]:
        others = [name for name in known if name != self.name]
        if parent == self.name:
            self.refuse(f"when names {parent!r} itself", "name another parameter or leave it out")
        if not isinstance(parent, str) or parent not in known:
            self.refuse(
                f"when names {shown(parent)}, which this space does not declare",
                f"declare it or leave out the condition{near(str(parent), others)}",
            )
        holder = known[parent]
        if isinstance(holder, Float):
            self.refuse(
                f"when names {parent!r}, which is a Float, and two real numbers are hardly ever equal",
                f"make {parent!r} a Choice or an Integer",
            )
        if not values:
            self.refuse(
                f"when gives no value for {parent!r}", "give at least one, or leave out the condition"
            )
        for value in values:
            if not holder.holds(value):
                self.refuse(
                    f"when asks for {parent!r} to be {shown(value)}, which {holder!r} cannot be",
                    f"use values that {parent!r} can take, or declare {self.name!r} anew, or as None",
                )
        held = self.distinct(holder.nearest(value) for value in values)
        if isinstance(holder, Choice):
            return tuple(value for value in holder.values if any(same(value, one) for one in held))
        return tuple(sorted(held) if isinstance(holder, Integer) else held)  # type: ignore[type-var]


def _parents_first(space: str, known: Mapping[str, Parameter]) -> list[str]:
    """Names, parents first, else in the order of TrialConfig's fields. Raises `InvalidSpace` for a cycle."""
    order: list[str] = []
    waiting = [name for name in field_names() if name in known]
    while waiting:
        ready = next((name for name in waiting if set(known[name].when or ()) <= set(order)), None)
        if ready is None:
            circle = ", ".join(f"{name!r} = {known[name]!r}" for name in _cycle(known, waiting))
            raise InvalidSpace(
                f"space {space!r}: the conditions of {circle} form a circle; take `when` from one of them"
            )
        waiting.remove(ready)
        order.append(ready)
    return order


def _cycle(known: Mapping[str, Parameter], waiting: list[str]) -> list[str]:
    """The parameters of one cycle among `waiting`, each of which waits for another one of them."""
    path = [waiting[0]]
    while True:
        parent = next(name for name in known[path[-1]].when or () if name in waiting)
        if parent in path:
            return path[path.index(parent) :]
        path.append(parent)


def _under(parameter: Float | Integer | Choice, when: When) -> Parameter:
    """The parameter under other conditions."""
    if isinstance(parameter, Choice):
        return Choice(*parameter.values, default=parameter.default, when=when)
    return replace(parameter, when=when)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
