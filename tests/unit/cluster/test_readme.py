"""What cluster/README.md says: commands can be typed, arithmetic holds, ports are those of the manifests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from autovision.cli.main import app

README = (Path(__file__).parents[3] / "cluster" / "README.md").read_text(encoding="utf-8")
FENCED = [
    line for block in re.findall(r"^```\n(.*?)^```$", README, re.S | re.M) for line in block.splitlines()
]

Templates = Callable[[str], list[tuple[str, dict[str, Any]]]]


def within() -> Iterator[str]:
    """Our commands that others run: after `--`, and in quotes."""
    for line in FENCED:
        for found in re.findall(r"""(?:-- |')(?:\w+=\S+ )*(autovision [^'")|]*)""", line):
            yield found.strip()


def test_they_are_found() -> None:
    assert len(list(within())) >= 8


@pytest.mark.parametrize("line", list(within()))
def test_a_command_that_others_run_can_be_typed(line: str) -> None:
    command: Any = get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    command.make_context(line, words)


def test_commands_in_the_text_about_alerts_name_what_there_is() -> None:
    for line in re.findall(r"`(autovision [^`]+)`", README):
        command: Any = get_command(app)
        words = shlex.split(line)[1:]
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_no_command_line_shows_a_secret() -> None:
    """What is on a command line is in the list of processes; `printf` is none, as shells have it within."""
    ours = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    shown = [
        line for block in re.findall(r"^```\n(.*?)^```$", ours, re.S | re.M) for line in block.splitlines()
    ]
    lines = [line for line in (*FENCED, *shown) if not line.startswith("printf ")]
    assert len(lines) > 60
    secret = re.compile(
        r"--from-literal|Bearer|\$\(.*(?:token create|openssl)|\$\{?\w*(?:TOKEN|SECRET|PASSWORD)"
    )
    assert [line for line in lines if secret.search(line)] == []


TIMES, BY = "\N{MULTIPLICATION SIGN}", "\N{DIVISION SIGN}"


def sums() -> list[tuple[str, str]]:
    """Both sides of what is worked out: numbers and operators, an equals sign, the result."""
    found = re.findall(rf"([\d(][-\d.,()+{TIMES}{BY} KB]*) = (\d[\d.]*)", README)
    return [(left, right) for left, right in found if re.search(rf"[+{TIMES}{BY}]", left)]


@pytest.mark.parametrize(("left", "right"), sums())
def test_arithmetic_holds(left: str, right: str) -> None:
    expression = left.replace(",", "").replace(TIMES, "*").replace(BY, "/").replace(" KB", "e-6")
    assert re.fullmatch(r"[\d.()+*/ e-]+", expression), expression
    value = float(right.rstrip("."))
    digits = len(right.rstrip(".").partition(".")[2])
    assert round(eval(expression), digits) == value


def test_all_sums_are_found() -> None:
    assert len(sums()) == 19


def cells(first: str) -> list[list[str]]:
    table = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", README, re.M)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def test_ports_are_those_of_the_manifests(pod_templates: Templates) -> None:
    open_ports = {
        str(port["containerPort"])
        for _, template in pod_templates("base")
        for container in template["spec"]["containers"]
        for port in container["ports"]
    }
    named = {port for row in cells("who") for port in re.findall(r"\d{4,5}", row[2])} - {"6443"}
    assert named == open_ports - {"6379"}  # Ray's own, among `any`


NODES = {
    "m7i.large": (1.93, 7.0),
    "m7i.xlarge": (3.92, 14.5),
    "m7i.2xlarge": (7.91, 29.5),
    "g6.2xlarge": (7.91, 29.5),
}
"""CPUs and GiB of memory that such a node has left for pods, below what Kubernetes keeps for itself"""


@pytest.mark.parametrize("overlay", ["small", "base", "spot", "gpu"])
def test_what_is_always_there_fits_onto_the_nodes_that_are_paid_for(
    overlay: str, pod_templates: Templates, built: Callable[[str], list[dict[str, Any]]]
) -> None:
    folder = overlay if overlay == "base" else f"overlays/{overlay}"
    [row] = [row for row in cells("overlay") if row[0] == overlay]
    [steady] = re.findall(r"1 (\S+):", row[1])
    cpus, memory = 0.2, 0.5  # of the autoscaler beside the head
    replicas = {
        e["metadata"]["name"]: e["spec"]["replicas"] for e in built(folder) if e["kind"] == "Deployment"
    }
    for name, template in pod_templates(folder):
        [container] = template["spec"]["containers"]
        asked = container["resources"]["requests"]
        needs = amount(asked["cpu"]), amount(asked["memory"])
        if name.endswith("/head") or name in replicas:
            cpus += needs[0] * replicas.get(name, 1)
            memory += needs[1] * replicas.get(name, 1)
        else:
            column = 3 if name.startswith("serving") else 2
            kinds = [NODES[kind] for kind in re.findall(r"[a-z]\w+\.\w+", row[column])]
            assert (
                any(needs[0] <= node[0] and needs[1] <= node[1] for node in kinds) or name == "search/cpu"
            ), name
    assert cpus <= NODES[steady][0] and memory <= NODES[steady][1]


def amount(text: str) -> float:
    """CPUs, or GiB."""
    if text.endswith("m"):
        return float(text[:-1]) / 1000
    if text.endswith("Mi"):
        return float(text[:-2]) / 1024
    return float(text.removesuffix("Gi"))
