"""A machine with the client alone: what it needs, and what it says of the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from autovision.cli.main import commands
from autovision.service.server import ServiceServer

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHER_NAMES = {"pillow": "PIL", "scikit-learn": "sklearn"}
"""packages whose module has another name"""

ALONE = """
import sys

REFUSED = set(sys.argv[1].split(","))


class OnlyTheClient:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, OnlyTheClient())
from autovision.cli.main import run

sys.exit(run(sys.argv[2:]))
"""


def modules(requirements: list[str]) -> set[str]:
    names = {re.split(r"[^A-Za-z0-9_.-]", each)[0].lower() for each in requirements}
    return {OTHER_NAMES.get(name, name.replace("-", "_")) for name in names}


FULL = modules(PROJECT["optional-dependencies"]["full"])


def alone(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command where nothing but the client's own packages can be imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AUTOVISION_")}
    return subprocess.run(
        [sys.executable, "-c", ALONE, ",".join(sorted(FULL)), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | environment,
        timeout=60,
        check=False,
    )


def test_what_is_heavy_is_not_in_the_client() -> None:
    assert {
        "ray",
        "torch",
        "timm",
        "optuna",
        "numpy",
        "pyarrow",
        "boto3",
        "openvino",
        "fastapi",
        "PIL",
    } <= FULL
    assert modules(PROJECT["dependencies"]) == {"typer", "rich", "httpx", "pydantic", "cronsim", "tzdata"}
    for extra in ("demo", "dev"):
        assert any(each.startswith("autovision[full") for each in PROJECT["optional-dependencies"][extra])


def test_help_needs_nothing_else() -> None:
    ran = alone("--help")
    assert ran.returncode == 0 and "search" in ran.stdout and ran.stderr == ""
    for line in ("search submit", "service run", "controller run", "demo"):
        assert line in commands() and alone(*line.split(), "--help").returncode == 0


def test_a_search_is_submitted_and_followed_from_there(
    store: Any, server: ServiceServer, tmp_path: Path
) -> None:
    def asked(*arguments: object) -> Any:
        ran = alone(*arguments, "--json", AUTOVISION_ADDRESS=server.url)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    (tmp_path / "mine.json").write_text(
        '{"format": 1, "name": "Mine", "parameters": {"lr": {"kind": "float", "low": 0.001, "high": 0.1}}}'
    )
    made = asked("search", "submit", "pets", "--budget-s", "5", "--space", tmp_path / "mine.json")
    assert made["status"] == "queued"
    by_name = asked("search", "submit", "pets", "--space", "search_spaces:Quick")
    assert by_name["search"] == asked("search", "submit", "pets")["search"], (
        "its own code gives the same data"
    )
    assert [each["search"] for each in asked("search", "list")] == [made["search"], by_name["search"]]
    assert asked("search", "show", made["search"])["request"]["space"]["name"] == "Mine"
    assert len(asked("search", "queue")) == 2
    assert asked("dataset", "list")[1]["dataset"] == "pets@2"
    assert asked("search", "stop", made["search"])["status"] == "stopped"
    assert asked("search", "watch", made["search"])["status"] == "stopped"
    shown = alone("search", "show", made["search"], AUTOVISION_ADDRESS=server.url)
    assert shown.returncode == 0 and "Mine" in shown.stdout
    assert asked("search", "explain", made["search"])["winner"] is None


@pytest.mark.parametrize(
    "line",
    [
        "search list",
        "dataset import photos --name pets",
        "controller run",
        "predict m-1 x.png",
        "service run",
    ],
)
def test_what_needs_the_rest_says_so(line: str, tmp_path: Path) -> None:
    ran = alone(*line.split(), "--store", tmp_path / "store")
    assert (ran.returncode, ran.stdout) == (1, ""), ran
    assert "pip install 'autovision[full]'" in ran.stderr and "Traceback" not in ran.stderr
