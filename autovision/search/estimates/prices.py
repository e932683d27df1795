"""What a search costs in money, from a table of prices that a user gives. Without a table nothing is said of money.

    currency = "EUR"
    cpu = 0.04              # of one CPU for an hour
    gpu = 1.90              # of one GPU whose kind is not named below

    [gpus]                  # by Ray's accelerator type
    A100 = 3.20

    [nodes]                 # of a whole node, by the value of any of its Ray labels, such as its node group
    spot-workers = 0.55

A search is charged all of the cluster for as long as it runs.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autovision.errors import InvalidInput
from autovision.records.searches import PriceTable

ENVIRONMENT_VARIABLE = "AUTOVISION_PRICES"
_ACCELERATOR = "accelerator_type:"


def load(path: str | Path) -> PriceTable:
    """A table from a TOML or JSON file. Raises `InvalidInput`."""
    path = Path(path)
    example = 'it holds for example currency = "EUR" and cpu = 0.04, the price of one CPU for an hour'
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the price table {str(path)!r} cannot be read: {error}; {example}") from error
    try:
        data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        return PriceTable.model_validate(data)
    except (ValueError, RecursionError, ValidationError) as error:
        fault = _first(error) if isinstance(error, ValidationError) else str(error)
        raise InvalidInput(f"the price table {str(path)!r} is not valid: {fault}; {example}") from error


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'table'}: {first['msg']}"


def configured() -> PriceTable | None:
    """The table that `AUTOVISION_PRICES` names; None: it names none. Raises `InvalidInput`."""
    path = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    return load(path) if path else None


def cluster() -> list[Mapping[str, Any]]:
    """The living nodes of the cluster that this process is connected to; without a connection, this node."""
    import ray

    if ray.is_initialized():
        return [node for node in ray.nodes() if node["Alive"]]
    return [{"Resources": {"CPU": float(len(os.sched_getaffinity(0)))}}]


def per_hour(table: PriceTable, nodes: Sequence[Mapping[str, Any]]) -> float:
    """What a cluster costs for an hour.

    Args:
        nodes: as `ray.nodes()` tells them: `Resources`, and `Labels` if there are any.

    Raises:
        InvalidInput: the table has no price for something that is there.
    """
    return sum(_of_node(table, node.get("Resources", {}), node.get("Labels") or {}) for node in nodes)


def _of_node(table: PriceTable, resources: Mapping[str, float], labels: Mapping[str, str]) -> float:
    for value in labels.values():
        if value in table.nodes:
            return table.nodes[value]
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    price = 0.0
    if cpus:
        if table.cpu is None:
            raise InvalidInput("the price table has no price of a CPU; add cpu = PRICE, per hour")
        price += cpus * table.cpu
    if gpus:
        kinds = [name.removeprefix(_ACCELERATOR) for name in resources if name.startswith(_ACCELERATOR)]
        each = next((table.gpus[kind] for kind in kinds if kind in table.gpus), table.gpu)
        if each is None:
            kind = kinds[0] if kinds else "of this cluster"
            raise InvalidInput(
                f"the price table has no price of a GPU {kind}; add gpu = PRICE, or its kind under [gpus], per hour"
            )
        price += gpus * each
    return price


def money(amount: float, currency: str) -> str:
    """`0.012 EUR`, `3.40 EUR`"""
    digits = 2 if amount >= 1 or amount == 0 else 4
    return f"{amount:.{digits}f} {currency}".strip()
