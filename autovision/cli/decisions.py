"""How decisions are shown: what was decided, and what each gate said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autovision.cli.output import cell, facts, table, text

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.deployments import Decision


def decision_facts(decision: Decision) -> Table:
    return facts(
        {
            "decision": decision.what,
            "accepted": decision.accepted,
            "why": decision.why,
            "deployment": decision.deployment,
            "stored as": decision.id,
        }
    )


def gates_table(decision: Decision) -> list[Table]:
    """Each gate with its verdict and its figures; nothing for a decision that no gate was asked about."""
    rows = [
        [
            gate["name"],
            "passed" if gate["passed"] else text("FAILED", "red"),
            f"{gate['reason']}\n{_numbers(gate['numbers'])}",
        ]
        for gate in _gates(decision)
    ]
    return [table(["gate", "", "numbers"], rows)] if rows else []


def told(decision: Decision) -> str:
    """What and why, with each gate on a line of its own."""
    gates = _gates(decision)
    if not gates:
        return f"{decision.what}\n{decision.why}"
    # The reasons of the gates are part of why; each of them comes on its own line instead.
    reasons = "; ".join(f"{gate['name']}: {gate['reason']}" for gate in gates)
    failed = "; ".join(f"{gate['name']}: {gate['reason']}" for gate in gates if not gate["passed"])
    why = decision.why
    for each in (reasons, failed):
        why = why.removesuffix(f": {each}") if each else why
    lines = [f"{'passed' if gate['passed'] else 'FAILED'} {gate['name']}: {gate['reason']}" for gate in gates]
    return "\n".join([decision.what, why, *lines])


def _gates(decision: Decision) -> list[dict[str, Any]]:
    gates: list[dict[str, Any]] = decision.numbers.get("gates", [])
    return gates


def _numbers(numbers: Mapping[str, Any]) -> str:
    """Plain figures in one line; what is nested is in the JSON form."""
    shown = {name: value for name, value in numbers.items() if isinstance(value, int | float | str)}
    return ", ".join(f"{name} {cell(value)}" for name, value in shown.items())
