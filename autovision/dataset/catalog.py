"""Which data sets and versions the store has."""

from __future__ import annotations

from autovision.errors import InvalidInput, NotFound, near
from autovision.records.datasets import DatasetVersion
from autovision.store import keys, records
from autovision.store.protocol import Store

_RECORD = ".json"


def list_names(store: Store) -> list[str]:
    """The names of all data sets that have a version, sorted."""
    found = [key.removeprefix(keys.DATASETS).split("/") for key in store.list(keys.DATASETS)]
    return sorted({parts[0] for parts in found if parts[0:2] == [parts[0], "versions"]})


def version_numbers(store: Store, name: str) -> list[int]:
    """Ascending; empty if there is no such data set."""
    prefix = keys.dataset_versions(keys.check_name(name, what="the data set's name"))
    stems = [
        key.removeprefix(prefix).removesuffix(_RECORD) for key in store.list(prefix) if key.endswith(_RECORD)
    ]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def versions(store: Store, name: str) -> list[DatasetVersion]:
    """All versions of a data set, the oldest first. Raises `NotFound`."""
    return [_read(store, name, number) for number in _numbers(store, name)]


def latest(store: Store, name: str) -> DatasetVersion:
    """The newest version. Raises `NotFound`."""
    return _read(store, name, _numbers(store, name)[-1])


def get(store: Store, reference: str) -> DatasetVersion:
    """The version that `name@3` names, or the newest one of `name`.

    Raises:
        NotFound: no such data set or version; near names are offered.
        InvalidInput: neither of the two forms.
    """
    name, at, number = reference.partition("@")
    if not at:
        return latest(store, name)
    if not (number.isascii() and number.isdecimal() and int(number) >= 1):
        raise InvalidInput(
            f"{reference!r} does not name a version of a data set; write NAME or NAME@NUMBER, e.g. {name}@1"
        )
    existing = _numbers(store, name)
    if int(number) not in existing:
        raise NotFound(
            f"data set {name!r} has no version {int(number)}; it has {_listed(existing)}: name one of them, "
            f"or just {name!r} for the newest"
        )
    return _read(store, name, int(number))


def _numbers(store: Store, name: str) -> list[int]:
    numbers = version_numbers(store, name)
    if not numbers:
        names = list_names(store)
        known = f"; there are {', '.join(names[:10])}" if names else "; there is none yet"
        raise NotFound(
            f"there is no data set {name!r} in the store {store.uri}{near(name, names) or known}; "
            "`autovision dataset list` shows them, `autovision dataset import` makes one"
        )
    return numbers


def _read(store: Store, name: str, number: int) -> DatasetVersion:
    what = f"data set version '{name}@{number}'"
    return records.read(store, keys.dataset_version(name, number), DatasetVersion, what=what)


def _listed(numbers: list[int]) -> str:
    return (
        f"1 to {numbers[-1]}" if numbers == list(range(1, numbers[-1] + 1)) else ", ".join(map(str, numbers))
    )
