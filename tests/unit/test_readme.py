"""What the READMEs say is true of the program."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from autovision import errors
from autovision.cli.main import app, commands

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "search_spaces/README.md", "cluster/README.md")
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}


def lines() -> list[tuple[str, str]]:
    """Every command of ours in a fenced block, or in back ticks."""
    found = []
    for page, text in TEXT.items():
        for block in re.findall(r"```\w*\n(.*?)```", text, re.S):
            found += [
                (page, line.strip())
                for line in block.splitlines()
                if re.match(r"^(\w+=\S+ )*autovision ", line)
            ]
        found += [(page, each) for each in re.findall(r"`(autovision [^`\n]+)`", text)]
    return found


@pytest.mark.parametrize(("page", "line"), lines())
def test_every_command_and_option_exists(page: str, line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if "=" not in word or word.startswith("-")][1:]
    command = get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"{page}: no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{page}: {line!r} has the unknown option {word}"


def test_every_command_is_mentioned() -> None:
    missing = [command for command in commands() if f"autovision {command}" not in TEXT["README.md"]]
    assert missing == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {name for text in TEXT.values() for name in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M)}
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_python_snippets_compile() -> None:
    snippets = [each for text in TEXT.values() for each in re.findall(r"```python\n(.*?)```", text, re.S)]
    assert snippets
    for snippet in snippets:
        ast.parse(snippet)


def test_exit_codes_are_those_of_the_errors() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", TEXT["README.md"], re.M)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in kinds if hasattr(kind, "exit_code")} <= documented


def test_the_top_level_holds_only_what_belongs_there() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing is tracked that could be in the wrong place")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    allowed = {
        "autovision",
        "search_spaces",
        "cluster",
        "tests",
        "pyproject.toml",
        "README.md",
        "Makefile",
        "LICENSE",
    }
    assert {name for name in top if not name.startswith(".")} <= allowed
