"""All policies of deployments as one document: checked as a whole, compared, and applied by compare-and-swap.

    deployments:
      pets:
        retraining: {min_labels: 100, schedule: 0 3 * * 1, time_zone: Europe/Berlin}
        capture: {keep_days: 90}

A section that is given is the whole section: what it leaves out has its default. A section that is left out stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError

from autovision.dataset import catalog, manifest
from autovision.errors import InvalidInput, NotFound, near
from autovision.records.base import Record
from autovision.records.deployments import CapturePolicy, Deployment, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.rollouts import RolloutPolicy
from autovision.registry import deployments
from autovision.store.protocol import Store

ROOT = "deployments"
NONE = "none"
_PLAIN = {
    "tuple_type": "it takes a list; write [A, B], or [A] for one alone",
    "bool_type": "give true or false",
    "int_type": "give a whole number, without quotes",
    "int_from_float": "give a whole number",
    "float_type": "give a number, without quotes",
    "string_type": "give a text; in quotes if it looks like a number",
}
"""kind of a fault -> what it takes, where the checker's own words speak of Python's types"""


@dataclass(frozen=True)
class Section:
    """A part of the document: where a deployment has it, and what may stand in it."""

    field: str
    type: type[Record]


SECTIONS: Mapping[str, Section] = {
    "retraining": Section("policy", RetrainingPolicy),
    "gates": Section("gate_policy", GatePolicy),
    "rollout": Section("rollout_policy", RolloutPolicy),
    "capture": Section("capture_policy", CapturePolicy),
}


@dataclass(frozen=True)
class Change:
    """One value that is, or would be, another one. Values are in JSON form."""

    deployment: str
    key: str
    """such as `retraining.window`"""
    before: Any
    after: Any


@dataclass(frozen=True)
class Wanted:
    """What a document wants of one deployment."""

    deployment: str
    policies: Mapping[str, Record] = field(default_factory=dict)
    """by the names of sections"""

    def of(self, current: Deployment) -> Deployment:
        """The deployment with these policies. Raises `InvalidInput` where they do not fit each other."""
        changed = {SECTIONS[name].field: policy for name, policy in self.policies.items()}
        # Not `with_`, which checks anew what has been read: a policy is checked already.
        return deployments.check_policies(current.model_copy(update=changed))


def parse(document: Mapping[str, Any], source: str) -> list[Wanted]:
    """What a document wants. Raises one `InvalidInput` with every fault: file, key, value and remedy."""
    faults: list[str] = []
    for key in document:
        if key != ROOT:
            remedy = (
                f"; it belongs below {ROOT}, and there below a deployment's name" if key in SECTIONS else ""
            )
            faults.append(
                f"{key}: there is no such key{near(key, [ROOT])}; the only one here is {ROOT!r}{remedy}"
            )
    if faults and ROOT not in document:
        _raise(faults, source)
    wanted = []
    for name, sections in _mapping(document.get(ROOT), ROOT, faults).items():
        path = f"{ROOT}.{name}"
        policies = {}
        for section, values in _mapping(sections, path, faults).items():
            if section not in SECTIONS:
                known = f"known are {', '.join(SECTIONS)}"
                faults.append(f"{path}.{section}: there is no such section{near(section, SECTIONS)}; {known}")
                continue
            type_ = SECTIONS[section].type
            policy = _checked(
                type_, _mapping(values, f"{path}.{section}", faults), f"{path}.{section}", faults
            )
            if policy is not None:
                policies[section] = policy
        wanted.append(Wanted(name, policies))
    _raise(faults, source)
    return wanted


def render(deployment: Deployment) -> dict[str, Any]:
    """The document that says all policies of a deployment, as `parse` takes it."""
    return {
        ROOT: {
            deployment.name: {
                name: getattr(deployment, section.field).model_dump(mode="json")
                for name, section in SECTIONS.items()
            }
        }
    }


def compare(store: Store, wanted: Iterable[Wanted], source: str) -> list[Change]:
    """What applying would change. Raises one `InvalidInput` or `NotFound` with every fault."""
    changes: list[Change] = []
    faults: list[str] = []
    missing: list[str] = []
    for each in wanted:
        try:
            current = deployments.get(store, each.deployment)
            changes += _changes(current, each.of(current))
        except NotFound as error:
            missing.append(f"{ROOT}.{each.deployment}: {error}")
        except InvalidInput as error:
            faults.append(f"{ROOT}.{each.deployment}: {error}")
    if missing and not faults:
        raise NotFound(f"{source}: " + f"\n{source}: ".join(missing))
    _raise([*faults, *missing], source)
    return changes


def apply(store: Store, wanted: Iterable[Wanted], source: str) -> list[Change]:
    """Change each deployment to what is wanted of it, in one write each; what changed.

    Nothing is changed if anything is wrong. Raises like `compare`.
    """
    each_wanted = list(wanted)
    compare(store, each_wanted, source)
    changes: list[Change] = []
    for each in each_wanted:
        seen: list[Deployment] = []

        def change(current: Deployment, each: Wanted = each, seen: list[Deployment] = seen) -> Deployment:
            seen.append(current)
            return each.of(current)

        after = deployments.decide(store, each.deployment, change, None)
        # What was compared last is what was written over.
        changes += _changes(seen[-1], after)
    return changes


def remarks(store: Store, wanted: Iterable[Wanted]) -> list[str]:
    """What may be meant and does nothing as yet: a subgroup that no image of the data set has."""
    found = []
    for each in wanted:
        policy = each.policies.get("retraining")
        if not isinstance(policy, RetrainingPolicy) or policy.subgroup is None:
            continue
        try:
            version = catalog.latest(store, deployments.get(store, each.deployment).dataset)
        except NotFound:
            continue
        columns = sorted({name for row in manifest.read(store, version) for name in row.metadata})
        if policy.subgroup not in columns:
            found.append(
                f"{ROOT}.{each.deployment}.retraining.subgroup: no image of {version.id} has metadata "
                f"{policy.subgroup!r}{near(policy.subgroup, columns)}; it has {', '.join(columns) or 'none'}: no group "
                "is protected by it until images come with it"
            )
    return found


def _changes(before: Deployment, after: Deployment) -> list[Change]:
    old, new = render(before)[ROOT][before.name], render(after)[ROOT][after.name]
    return [
        Change(before.name, f"{section}.{key}", old[section].get(key), value)
        for section, values in new.items()
        for key, value in values.items()
        if old[section].get(key) != value
    ]


# ---------------------------------------------------------------------------------------------- checking


def _mapping(value: Any, path: str, faults: list[str]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    shown = "nothing" if value is None else f"{value!r}"
    faults.append(f"{path}: {shown} stands there; it takes a mapping of keys to values")
    return {}


def _checked(type_: type[Record], values: Mapping[str, Any], path: str, faults: list[str]) -> Record | None:
    before = len(faults)
    plain = {}
    for key, value in values.items():
        if key not in type_.model_fields:
            known = type_.model_fields
            hint = near(key, known) or f"; known are {', '.join(known)}"
            faults.append(f"{path}.{key}: there is no such key{hint}")
        elif (fault := _odd(value)) is not None:
            faults.append(f"{path}.{key}: {fault}")
        else:
            plain[key] = None if value == NONE and _takes_none(type_, key) else value
    if len(faults) > before:
        return None
    try:
        # Strictly: a text is no number.
        return type_.model_validate({key: _as_held(value) for key, value in plain.items()}, strict=True)
    except ValidationError as error:
        for each in error.errors(include_url=False):
            where = ".".join([path, *map(str, each["loc"])])
            got = f" (got {each['input']!r})" if each["loc"] else ""
            message = _PLAIN.get(each["type"]) or each["msg"].removeprefix("Value error, ")
            faults.append(f"{where}: {message}{got}")
        return None


def _as_held(value: Any) -> Any:
    """Lists are tuples in records."""
    return tuple(map(_as_held, value)) if isinstance(value, list) else value


def _odd(value: Any) -> str | None:
    """What is wrong with a value that no policy can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not finite; give a number, or none for no limit"
    if isinstance(value, list | tuple):
        return next((fault for each in value if (fault := _odd(each)) is not None), None)
    if value is None or isinstance(value, str | int | float):
        return None
    return f"{value!r} is a {type(value).__name__}; give a text in quotes, a number, true, false or a list"


def _takes_none(type_: type[Record], key: str) -> bool:
    """Whether `none` says that there is none: TOML has no null. Of a text it may be the text itself."""
    kinds = get_args(type_.model_fields[key].annotation)
    return type(None) in kinds and str not in kinds


def _raise(faults: list[str], source: str) -> None:
    if faults:
        raise InvalidInput("\n".join(f"{source}: {fault}" for fault in faults))
