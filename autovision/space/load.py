"""Finding a search space by what a person types: `quick`, `MODULE:NAME` or a JSON file.

Importing a module runs it, so this is for the person's own machine only. What travels is the JSON form.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from autovision.errors import AutoVisionError, InvalidSpace, near
from autovision.space.parameters import shown
from autovision.space.space import Space

SHIPPED = "search_spaces"
"""the package that short names are looked up in"""


def load_space(spec: str) -> Space:
    """The space that `spec` names.

    Args:
        spec: `MODULE:NAME`, where the module is also looked for in the current directory; the path of a
            `.json` file; or the short name of a shipped space, such as `quick`.

    Raises:
        InvalidSpace: there is no such file, module or name, it is no space, or it is not a valid one.
    """
    if spec.endswith(".json"):
        return _from_file(Path(spec))
    module_name, colon, name = spec.partition(":")
    if not colon:
        return shipped_space(spec)
    if not all(part.isidentifier() for part in module_name.split(".")) or not name.isidentifier():
        raise InvalidSpace(
            f"search space {spec!r} is not of the form MODULE:NAME, such as search_spaces.quick:Quick"
        )
    with _current_directory_first():
        module = _import(module_name, spec)
    return _space_in(module, name, spec)


def shipped_space(spec: str) -> Space:
    """The shipped space of that name: what runs is the package's own code, whoever asks. Raises `InvalidSpace`."""
    package = _import(SHIPPED, spec)
    names = {name.lower(): name for name in package.__all__}
    if spec.lower() not in names:
        raise InvalidSpace(
            f"search space {spec!r} is none of the shipped ones, {', '.join(sorted(names))}; "
            f"for your own write MODULE:NAME or the path of a .json file{near(spec.lower(), names)}"
        )
    return _space_in(package, names[spec.lower()], spec)


def _space_in(module: ModuleType, name: str, spec: str) -> Space:
    try:
        found = getattr(module, name)
    except AttributeError:
        spaces = [key for key, value in vars(module).items() if _is_space(value)]
        listed = f"it has {', '.join(spaces)}" if spaces else "it has no search space at all"
        raise InvalidSpace(
            f"search space {spec!r}: module {module.__name__!r} has no {name!r}; {listed}{near(name, spaces)}"
        ) from None
    if not _is_space(found):
        raise InvalidSpace(
            f"search space {spec!r}: {name!r} is {shown(found)}, which is no search space; "
            "name a subclass of autovision.space.Space or an instance of one"
        )
    return found() if isinstance(found, type) else found  # type: ignore[no-any-return]


def _is_space(value: Any) -> bool:
    kind = value if isinstance(value, type) else type(value)
    return issubclass(kind, Space) and kind is not Space


def _import(name: str, spec: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except AutoVisionError:
        raise  # the module's own space is not valid, and the message says why
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidSpace(
                f"search space {spec!r}: module {name!r} needs {error.name!r}, which is missing; install it"
            ) from error
        raise InvalidSpace(
            f"search space {spec!r}: there is no module {error.name!r}, neither installed nor in "
            f"{Path.cwd()}; check the spelling, or change to the folder that holds it"
        ) from error
    except Exception as error:
        raise InvalidSpace(
            f"search space {spec!r}: importing module {name!r} failed with {type(error).__name__}: {error}; "
            "mend the module and try again"
        ) from error


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """As `python -m` does it, but only for the time of the import."""
    entry = str(Path.cwd())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _from_file(path: Path) -> Space:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSpace(
            f"search space file {str(path)!r} cannot be read: {error.strerror}; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidSpace(f"search space file {str(path)!r} is not UTF-8 text; save it as UTF-8") from error
    try:
        data = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidSpace(
            f"search space file {str(path)!r} is not valid JSON: {error}; write one with Space.to_json()"
        ) from error
    return Space.from_json(data)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different: JSON readers silently keep the last of two equal ones."""
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"the key {key!r} stands twice in one object")
        seen[key] = value
    return seen
