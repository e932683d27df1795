"""The table of what a space may name, from TrialConfig itself: `python -m autovision.space.reference`."""

from __future__ import annotations

import json
from typing import Any

from autovision.space.config import TrialConfig


def parameter_table() -> str:
    """A Markdown table, a row for each field of TrialConfig: name, what is allowed, default, meaning."""
    rows = ["| parameter | allowed | default | meaning |", "|---|---|---|---|"]
    for name, schema in TrialConfig.model_json_schema()["properties"].items():
        default = "None" if schema["default"] is None else _plain(schema["default"])
        rows.append(f"| `{name}` | {_allowed(schema)} | {default} | {_one_line(schema)} |")
    return "\n".join(rows)


def _one_line(schema: dict[str, Any]) -> str:
    return " ".join(schema.get("description", "").split())


def _allowed(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_allowed, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(_plain, schema["enum"]))
    match schema["type"]:
        case "boolean":
            return "True, False"
        case "null":
            return "None"
        case "string":
            return (
                f"text like `{schema['pattern'].strip('^$').partition('[')[0]}NAME`"
                if "pattern" in schema
                else "text"
            )
        case kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{_ends(schema)}"


def _ends(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)


def _plain(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else str(value) if value is False else json.dumps(value)


if __name__ == "__main__":
    print(parameter_table())
