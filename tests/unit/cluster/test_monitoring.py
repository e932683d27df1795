"""Rules and dashboard: PromQL that parses, about metrics that there are, and a section about every alert."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families

from autovision.records.base import now
from autovision.registry.telemetry import Telemetry
from autovision.service.metrics import ServiceMetrics
from autovision.serving import problems
from autovision.serving.edge.gather import merged
from autovision.serving.metrics import Metrics
from autovision.serving.schema import CaptureStatus, FollowStatus, ServerInfo
from autovision.store import MemoryStore

CLUSTER = Path(__file__).parents[3] / "cluster"
RULES = yaml.safe_load((CLUSTER / "monitoring" / "rules.yaml").read_text(encoding="utf-8"))["spec"]
DASHBOARD = json.loads((CLUSTER / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
README = (CLUSTER / "README.md").read_text(encoding="utf-8")


def rules() -> Iterator[dict[str, Any]]:
    for group in RULES["groups"]:
        yield from group["rules"]


ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]
EXPRESSIONS = [
    *(rule["expr"] for rule in rules()),
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())),
]


def selectors(parsed: Any) -> Iterator[Any]:
    """Everything in an expression that asks for a metric by name."""
    if isinstance(parsed, promql_parser.VectorSelector):
        yield parsed
    elif isinstance(parsed, promql_parser.MatrixSelector):
        yield parsed.vector_selector
    elif isinstance(parsed, promql_parser.BinaryExpr):
        yield from selectors(parsed.lhs)
        yield from selectors(parsed.rhs)
    elif isinstance(parsed, promql_parser.Call):
        for each in parsed.args:
            yield from selectors(each)
    elif hasattr(parsed, "expr"):
        yield from selectors(parsed.expr)


def ours() -> set[str]:
    """The names of all series that an edge, a controller and an API service tell."""
    metrics = Metrics("r", _state)
    metrics.observe(arm="stable", model="m", latency_s=0.01, confidence=0.9)
    metrics.observe_batch("stable", "m", 1)
    told = merged([metrics.render().decode()], {"pets": 1}, 0, {"no-replica": 1}).decode()
    service = ServiceMetrics(MemoryStore(), lambda: 0)
    service.observe("GET", "/me", 200, 0.01)
    told += service.render().decode()
    names = {sample.name for family in text_string_to_metric_families(told) for sample in family.samples}
    return names | {family.name for family in Telemetry(MemoryStore(), {}, lambda: 0.0).collect()}


def _state() -> ServerInfo:
    return ServerInfo(
        model="m",
        classes=("cat", "dog"),
        since=now(),
        deployment="pets",
        replica="r",
        started_at=now(),
        swaps=0,
        requests=1,
        answered=1,
        errors={"too-large": 1},
        waiting=0,
        following=FollowStatus(),
        captures=CaptureStatus(),
    )


def rays() -> set[str]:
    """The names that Ray's own dashboards and reporters use."""
    root = Path(ray.__file__).parent
    names = set()
    for file in (root / "dashboard/modules/metrics/dashboards").glob("*.py"):
        names |= set(re.findall(r"\b(?:ray|autoscaler)_[a-z_]+", file.read_text(encoding="utf-8")))
    reporter = (root / "dashboard/modules/reporter/reporter_agent.py").read_text(encoding="utf-8")
    return names | {f"ray_{name}" for name in re.findall(r'Gauge\(\s*"([a-z_]+)"', reporter)}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_metrics_that_there_are(expression: str) -> None:
    found = list(selectors(promql_parser.parse(expression)))
    assert found
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert {each.name for each in found} <= ours() | rays() | recorded


def test_a_metric_that_is_not_there_would_be_found() -> None:
    [found] = selectors(promql_parser.parse("sum(rate(autovision_request_total[5m])) > 0"))
    assert found.name not in ours() | rays()
    with pytest.raises(ValueError):
        promql_parser.parse("sum(rate(autovision_requests_total[5m])")


def test_kinds_of_errors_are_those_of_the_server() -> None:
    [expression] = [rule["expr"] for rule in rules() if rule.get("record") == "autovision:errors:rate5m"]
    [asked] = re.findall(r'kind=~"([^"]+)"', expression)
    code = Path(problems.__file__).read_text(encoding="utf-8")
    assert set(asked.split("|")) <= set(re.findall(r'kind = "([a-z-]+)"', code)) | {
        problems.shape_of(RuntimeError()).kind
    }


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    sections = re.findall(r"^### (Autovision\w+)$", README, re.M)
    assert sorted(sections) == sorted(ALERTS)
    assert len(set(ALERTS)) == len(ALERTS)


def test_alerts_say_how_bad_and_what() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert rule["annotations"]["summary"]


def test_every_alert_is_seen_to_fire_and_seen_not_to() -> None:
    tested = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tested for case in test.get("alert_rule_test", ())]
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) is fires} == set(ALERTS)


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH: Debian's `prometheus` has it")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    said = subprocess.run(
        [promtool, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    shutil.copy(Path(__file__).parent / "alerts.yaml", tmp_path)
    said = subprocess.run(
        [promtool, "test", "rules", tmp_path / "alerts.yaml"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_has_a_part_for_each_subject() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Serving", "Searches and trials", "API", "Drift and decisions", "Ray"]


def test_the_dashboard_is_given_to_grafana(built: Callable[[str], list[dict[str, Any]]]) -> None:
    [config] = [each for each in built("monitoring") if each["kind"] == "ConfigMap"]
    assert json.loads(config["data"]["dashboard.json"]) == DASHBOARD
