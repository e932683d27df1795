"""Files that a search is given: the costs of answers, and prices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from autovision.errors import InvalidInput

if TYPE_CHECKING:
    from autovision.records.searches import PriceTable


def read_costs(path: Path) -> dict[str, dict[str, float]]:
    """true class -> answered class -> cost. Raises `InvalidInput` for a file that does not hold that."""
    try:
        costs = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(
            f"--costs {path}: {error.strerror or error}; name a file that can be read"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"--costs {path} is no JSON ({error}); write {_SHAPE}") from None
    if not isinstance(costs, dict) or not costs:
        raise InvalidInput(f"--costs {path} holds no costs; write {_SHAPE}")
    for true, row in costs.items():
        numbers = isinstance(row, dict) and all(
            isinstance(cost, int | float) and not isinstance(cost, bool) for cost in row.values()
        )
        if not numbers:
            raise InvalidInput(
                f"--costs {path}: the entry of {true!r} is no object of numbers; write {_SHAPE}"
            )
    return costs


_SHAPE = '{"TRUE CLASS": {"ANSWER": COST}}, such as {"defective": {"functional": 5}, "functional": {"defective": 1}}'


def read_prices(path: Path | None, *, needed: bool = False) -> PriceTable | None:
    """The table of an option; where one is needed, else that of the environment."""
    from autovision.search.estimates import prices

    if path is not None:
        return prices.load(path)
    return prices.configured() if needed else None
