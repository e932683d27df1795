"""Limits: what serving the challenger takes on this node, and what the deployment's policy allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autovision.promotion.gates.paired import GateResult
from autovision.records.gates import GatePolicy


@dataclass(frozen=True)
class Taken:
    """What serving a model takes; None: no limit asked for it, or `fault` says why it could not be measured."""

    size_mb: float
    """10⁶ bytes of the file of weights"""
    runtime: str = ""
    """that was measured, such as `openvino-f32`; empty: none was"""
    node: str = ""
    """the kind of node that it was measured on"""
    latency_ms: float | None = None
    """median of one image at a time, decoding and HTTP not included"""
    memory_mb: float | None = None
    """10⁶ bytes that a process holds at most which serves the model"""
    fault: str | None = None
    """why the runtime may not serve it, or cannot be measured"""


def within_limits(taken: Taken, policy: GatePolicy) -> Iterator[GateResult]:
    """One gate for each limit that the policy has. What could not be measured is within none."""
    if policy.max_latency_ms is not None:
        yield _within("latency", taken.latency_ms, policy.max_latency_ms, "ms", taken)
    if policy.max_memory_mb is not None:
        yield _within("memory", taken.memory_mb, policy.max_memory_mb, "MB", taken)
    if policy.max_size_mb is not None:
        passed = taken.size_mb <= policy.max_size_mb
        yield GateResult(
            "within_size",
            passed,
            f"its weights are {taken.size_mb:.2f} MB, allowed are {policy.max_size_mb:g} MB",
            {"size_mb": taken.size_mb, "max_size_mb": policy.max_size_mb},
        )


def _within(what: str, value: float | None, limit: float, unit: str, taken: Taken) -> GateResult:
    name, field = f"within_{what}", f"{what}_{unit.lower()}"
    numbers = {"runtime": taken.runtime, "node": taken.node, f"max_{field}": limit}
    if value is None:
        return GateResult(name, False, f"its {what} could not be measured: {taken.fault}", numbers)
    return GateResult(
        name,
        value <= limit,
        f"its {what} is {value:.1f} {unit}, allowed are {limit:g} {unit} ({taken.runtime} on {taken.node})",
        {**numbers, field: value},
    )
