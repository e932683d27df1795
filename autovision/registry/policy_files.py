"""Files of policies: YAML, JSON or TOML, as plain data in which nothing is lost or guessed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from autovision.errors import InvalidInput

MOST_BYTES = 1_000_000


def read(path: Path) -> dict[str, Any]:
    """What a file says, by its suffix. Raises `InvalidInput` that names the file, the place and the remedy."""
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InvalidInput(
            f"{path}: policies are files in YAML, JSON or TOML, and {path.suffix or 'no suffix'!r} is none of them; "
            f"name it {path.with_suffix('.yaml').name}, for example"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}; name a file that can be read") from None
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"{path} has {len(data):,} bytes, and a policy file at most {MOST_BYTES:,}")
    try:
        found = parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (_Fault, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path}: {_yaml_fault(error)}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} holds no mapping; begin it with 'deployments:'")
    return found


class _Fault(Exception):
    """What is wrong with a file, with its place."""


class _Loader(yaml.SafeLoader):
    """Refuses what YAML lets pass: a key that is there twice, and shared parts, which may grow without end."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _Fault(
                f"line {mark.line + 1}: '*' begins an alias here, and a policy file has none; put a text that begins "
                "with it in quotes, such as '*/5 * * * *'"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _Fault(f"line {line}: the key {key!r} is no text; put it in quotes")
            if key in seen:
                raise _Fault(f"line {line}: {key!r} is there twice; leave one of them out")
            seen.add(key)
        return dict(super().construct_mapping(node, deep))


def _yaml_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = str(getattr(error, "problem", None) or error)
    remedy = "indent with spaces" if "'\\t'" in problem else "texts with special characters need quotes"
    return f"{where}no YAML: {problem}; {remedy}"


def _from_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)  # a safe one: it makes nothing but plain data


def _from_json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise _Fault(f"{key!r} is there twice; leave one of them out")
            found[key] = value
        return found

    return json.loads(text, object_pairs_hook=once)


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _from_yaml,
    ".yml": _from_yaml,
    ".json": _from_json,
    ".toml": tomllib.loads,
}
