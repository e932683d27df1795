"""The client alone, installed as a person installs it: its packages, and a search that is submitted from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from autovision.service.server import ServiceServer
from autovision.store import MemoryStore, keys, records
from tests.unit.service.conftest import made, version

ROOT = Path(__file__).parents[2]
HEAVY = ("ray", "torch", "torchvision", "timm", "optuna", "numpy", "pyarrow", "boto3", "openvino", "fastapi")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which nothing but the client was installed."""
    folder = tmp_path_factory.mktemp("client")
    source = folder / "source"
    for name in ("autovision", "search_spaces"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    venv.create(folder / "venv", with_pip=True)
    found = folder / "venv" / "bin" / "python"
    installed = subprocess.run(
        [found, "-m", "pip", "install", "--quiet", source], capture_output=True, text=True, check=False
    )
    if installed.returncode and "No matching distribution found for setuptools" in installed.stderr:
        pytest.skip("no package index can be reached from here")
    assert installed.returncode == 0, installed.stderr
    return found


def ran(python: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "HOME": str(python.parent)}
    return subprocess.run(
        [python.with_name("autovision"), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=kept | environment,
        cwd=python.parent,
        check=False,
    )


def test_nothing_heavy_is_installed(python: Path) -> None:
    look = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    found = subprocess.run([python, "-c", look, *HEAVY], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_search_is_submitted_and_watched_from_there(python: Path) -> None:
    assert "search" in ran(python, "--help").stdout
    store: Any = MemoryStore()
    records.create(store, keys.dataset_version("pets", 1), version("pets"))
    with ServiceServer(made(store, required=False), "127.0.0.1", 0) as server:
        there = {"AUTOVISION_ADDRESS": server.url}
        submitted = ran(
            python, "search", "submit", "pets", "--space", "search_spaces:Edge", "--json", **there
        )
        assert submitted.returncode == 0, submitted.stderr
        search = json.loads(submitted.stdout)["search"]
        assert ran(python, "search", "stop", search, **there).returncode == 0
        watched = ran(python, "search", "watch", search, "--json", **there)
        assert json.loads(watched.stdout)["status"] == "stopped"
    missing = ran(python, "search", "list", "--store", python.parent / "store")
    assert missing.returncode == 1 and "pip install 'autovision[full]'" in missing.stderr
