"""What the READMEs say is true of the program: nothing here runs a command, everything is looked up."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route
from typer import Context
from typer.main import get_command

from autovision import AutoVision
from autovision.cli.main import BUG, app, commands
from autovision.cli.output import REFUSED
from autovision.errors import InvalidImage
from autovision.image import decode
from autovision.records.deployments import RetrainingPolicy
from autovision.registry import policies, policy_files
from autovision.service.app import build_app as service_app
from autovision.serving.app import build_app
from autovision.serving.problems import problem_of
from autovision.serving.schema import Answer, Problem
from autovision.space import load_space
from autovision.store import MemoryStore, keys

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "search_spaces/README.md", "cluster/README.md")
TEXT = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
README = TEXT["README.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TOP_LEVEL = {
    *("autovision", "search_spaces", "cluster", "tests"),
    *("pyproject.toml", "README.md", "Makefile", "LICENSE"),
}

each_page = pytest.mark.parametrize("page", PAGES)


def blocks(text: str, language: str | None = None) -> list[str]:
    """What stands between fences; with a language, only between fences of that language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [body for tongue, body in fenced if language in (None, tongue)]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def quoted(page: str) -> list[str]:
    """What stands in single back ticks."""
    return re.findall(r"`([^`\n]+)`", prose(TEXT[page]))


def shell_lines(page: str) -> list[str]:
    """Lines of fenced blocks that can be typed: after `$ ` where output is shown, too, joined at backslashes."""
    joined = (re.sub(r"\\\n\s*", "", block) for block in blocks(TEXT[page]))
    return [line.removeprefix("$ ").strip() for block in joined for line in block.splitlines()]


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose first heading is `first`."""
    table = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", TEXT[page], re.M)
    assert table is not None, f"{page} has no table that begins with {first!r}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


# ---------------------------------------------------------------------------------------------- commands


def typed() -> list[tuple[str, str]]:
    """Every command of ours that is written out in a fenced block."""
    pattern = re.compile(r"(?:\w+=\S+ )*(autovision .*)")
    return [
        (page, found[1]) for page in PAGES for line in shell_lines(page) if (found := pattern.match(line))
    ]


def mentioned() -> list[tuple[str, str]]:
    """Every command of ours that the prose names; it may stand there without its arguments."""
    return [(page, each) for page in PAGES for each in quoted(page) if each.startswith("autovision ")]


def resolve(line: str) -> tuple[Any, list[str]]:
    """The command that a line calls, and the words after its name."""
    command: Any = get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"there is no command {words[0]!r} in {line!r}"
        command = command.commands[words.pop(0)]
    return command, words


def test_commands_are_found() -> None:
    assert {page for page, _ in typed()} == set(PAGES)
    assert len(typed()) > 15


@pytest.mark.parametrize(("page", "line"), typed())
def test_a_command_that_is_shown_can_be_typed(page: str, line: str) -> None:
    command, words = resolve(line)
    if not hasattr(command, "commands"):
        # Parses names, options, values and the number of arguments; what it would do is not called.
        command.make_context(line, words)


@pytest.mark.parametrize(("page", "line"), mentioned())
def test_a_command_that_is_named_exists_with_its_options(page: str, line: str) -> None:
    command, words = resolve(line)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in words if word.startswith("-")} <= known


def test_a_spelling_mistake_would_be_found() -> None:
    with pytest.raises(AssertionError, match="no command 'serch'"):
        resolve("autovision serch submit pets")
    command, words = resolve("autovision search submit pets --spaces quick")
    with pytest.raises(Exception, match="No such option"):
        command.make_context("submit", words)


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command: str) -> None:
    assert re.search(rf"autovision {command}(?![\w-])", README)


@cache
def all_options() -> frozenset[str]:
    """Every option of every command and group."""

    def walk(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from parameter.opts
        if hasattr(command, "commands"):
            for name in command.list_commands(Context(command)):
                yield from walk(command.commands[name])

    return frozenset(walk(get_command(app))) | {"--help"}


@each_page
def test_options_named_in_the_prose_exist(page: str) -> None:
    assert {each.split()[0] for each in quoted(page) if each.startswith("--")} <= all_options()


@pytest.mark.parametrize(("page", "line"), typed())
def test_shipped_spaces_are_named_as_they_are(page: str, line: str) -> None:
    _, words = resolve(line)
    if "--space" in words and ":" not in (space := words[words.index("--space") + 1]):
        assert load_space(space).parameters


# -------------------------------------------------------------------------------------- make, files, links


@each_page
def test_make_targets_and_variables_exist(page: str) -> None:
    calls = [line for line in (*shell_lines(page), *quoted(page)) if line.startswith("make ")]
    if page == "README.md":
        assert {"demo", "test", "lint"} <= {call.split()[1] for call in calls}
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    variables = set(re.findall(r"^(\w+) \?=", MAKEFILE, re.M))
    for call in calls:
        words = shlex.split(call, comments=True)[1:]
        assert {word for word in words if "=" not in word} <= targets, call
        assert {word.split("=")[0] for word in words if "=" in word} <= variables, call


def test_what_make_demo_leaves_is_named() -> None:
    recipe = re.search(r"autovision demo .*--store (\S+) --json (\S+)", MAKEFILE)
    assert recipe is not None
    for name in recipe.groups():
        assert f"`{name}" in README


@each_page
def test_paths_of_the_repository_exist(page: str) -> None:
    here = re.compile(rf"(?:{'|'.join(sorted(map(re.escape, TOP_LEVEL)))}|\.ci)(?:/[\w.-]+)*/?")
    for name in filter(here.fullmatch, quoted(page)):
        assert (ROOT / name).exists(), name


@each_page
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[page]):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """The fragments under which headings can be linked: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_layout_names_every_package_and_module() -> None:
    code = ROOT / "autovision"
    packages = {f"autovision/{each.parent.name}/" for each in code.glob("*/__init__.py")}
    modules = {f"autovision/{each.name}" for each in code.glob("*.py")} - {"autovision/__init__.py"}
    named = {name for row in rows("README.md", "where") for name in re.findall(r"`([^`]+)`", row[0])}
    assert {name for name in named if name.startswith("autovision/")} == packages | modules


def test_the_top_level_holds_only_what_belongs_there() -> None:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no git here to ask what is tracked")
    if listed.returncode:
        pytest.skip("not a git checkout: nothing is tracked that could be in the wrong place")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


# ------------------------------------------------------------------------------------ what the code decides


def test_exit_codes_are_those_of_the_errors() -> None:
    declared = {
        int(code)
        for path in (ROOT / "autovision").rglob("*.py")
        for code in re.findall(r"^    exit_code = (\d+)$", path.read_text(encoding="utf-8"), re.M)
    }
    documented = [int(row[0]) for row in rows("README.md", "exit code")]
    assert documented == sorted(declared | {0, REFUSED, BUG})


def test_the_retraining_policy_has_these_defaults() -> None:
    documented = {
        name: row[1].strip("`")
        for row in rows("README.md", "field")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    fields = RetrainingPolicy.model_fields
    assert documented == {
        # Truth is an integer to Python, and to nobody who reads.
        name: str(field.default)
        if isinstance(field.default, bool) or not isinstance(field.default, int | float)
        else f"{field.default:g}"
        for name, field in fields.items()
    }


def test_the_policy_file_that_is_shown_can_be_applied(tmp_path: Path) -> None:
    (shown,) = blocks(README, "yaml")
    (tmp_path / "pets.yaml").write_text(shown)
    (wanted,) = policies.parse(policy_files.read(tmp_path / "pets.yaml"), "pets.yaml")
    assert set(wanted.policies) == set(policies.SECTIONS)


def test_the_store_has_these_folders() -> None:
    assert keys.__doc__ is not None
    table = re.findall(r"^(\w+)/(?=\S)", keys.__doc__, re.M)
    documented = [match for row in rows("README.md", "key") for match in re.findall(r"`(\w+)/", row[0])]
    assert set(documented) == set(table)


def test_answers_that_are_shown_have_the_form_of_answers() -> None:
    shown = [line for block in blocks(README) for line in block.splitlines() if line.startswith('{"')]
    forms = [Answer if "label" in json.loads(line) else Problem for line in shown]
    assert set(forms) == {Answer, Problem}
    for form, line in zip(forms, shown, strict=True):
        form.model_validate_json(line)
        assert list(json.loads(line)) == [name for name in form.model_fields if name in json.loads(line)]


def test_the_problem_that_is_shown_is_what_this_page_gets_when_it_is_sent_as_an_image() -> None:
    sent = (ROOT / "README.md").read_bytes()
    with pytest.raises(InvalidImage) as refused:
        decode(sent)
    assert "--data-binary @README.md" in README
    assert problem_of(refused.value).model_dump_json(exclude_none=True) in README.splitlines()


def test_routes_are_those_of_the_server() -> None:
    engine: Any = None  # asked when a request comes, and none does
    routes = [route for route in build_app(engine).routes if isinstance(route, Route)]
    answered = {
        f"{method} {route.path}" for route in routes for method in (route.methods or set()) - {"HEAD"}
    }
    assert {row[0].strip("`") for row in rows("README.md", "route")} == answered


def test_endpoints_are_those_of_the_service() -> None:
    paths = service_app(MemoryStore()).api.openapi()["paths"]
    answered = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    named = [name for row in rows("README.md", "endpoint") for name in re.findall(r"`([^`]+)`", row[0])]
    assert set(named) == answered and len(named) == len(answered)


def test_environment_variables_are_read_somewhere() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "autovision").rglob("*.py"))
    named = {name for page in PAGES for name in re.findall(r"\bAUTOVISION_[A-Z]+\b", TEXT[page])}
    assert "AUTOVISION_STORE" in named
    assert {name for name in named if f'"{name}"' not in code} == set()


def test_python_version_and_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README
    asked = {extra for page in PAGES for extra in re.findall(r"\.\[([\w,]+)\]", TEXT[page])}
    assert asked
    assert {name for extra in asked for name in extra.split(",")} <= set(project["optional-dependencies"])


@each_page
def test_names_of_the_library_can_be_imported(page: str) -> None:
    for name in quoted(page):
        if re.fullmatch(r"autovision(\.\w+)+", name):
            assert imported(name) is not None, name


def imported(name: str) -> Any:
    """A module, or what one holds, by its dotted name; None if there is no such thing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute, None)


def test_python_snippets_compile() -> None:
    snippets = [snippet for page in PAGES for snippet in blocks(TEXT[page], "python")]
    assert snippets
    for snippet in snippets:
        ast.parse(snippet)


def test_the_python_api_takes_these_calls() -> None:
    calls = [
        node
        for snippet in blocks(README, "python")
        for node in ast.walk(ast.parse(snippet))
        if isinstance(node, ast.Call)
    ]
    on_the_api = [call for call in calls if isinstance(call.func, ast.Attribute) and owner(call.func) == "av"]
    assert len(on_the_api) >= 5
    for call in on_the_api:
        assert isinstance(call.func, ast.Attribute)
        method = getattr(AutoVision, call.func.attr)
        inspect.signature(method).bind(None, *call.args, **{str(k.arg): k.value for k in call.keywords})


def owner(attribute: ast.Attribute) -> str | None:
    """`av` of `av.search`."""
    return attribute.value.id if isinstance(attribute.value, ast.Name) else None


# ------------------------------------------------------------------------------------------------- figures


def test_the_figures_of_the_demo_stand_in_one_place() -> None:
    before, block, after = re.split(r"<!-- figures.*?-->(.*?)<!-- end of figures -->", README, flags=re.S)
    measured = set(re.findall(r"\d+\.\d+", block))
    assert len(measured) > 20
    assert measured & set(re.findall(r"\d+\.\d+", before + after)) == set()


def test_placement_on_a_cluster_is_as_documented() -> None:
    from autovision.search.sharing.placement import placement

    documented = rows("cluster/README.md", "CPUs")
    assert len(documented) >= 3
    for cells in documented:
        cpus, gpus, at_once, cpus_each, gpus_each = map(float, cells)
        place = placement([{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}])
        takes = place.of_worker()
        assert (place.concurrent, takes["cpu"], takes.get("gpu", 0.0)) == (at_once, cpus_each, gpus_each)
