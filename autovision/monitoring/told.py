"""A drift report in words."""

from __future__ import annotations

from autovision.records.deployments import DetectorVerdict, DriftReport, Moved

_SAID = 3
"""of what moved"""


def told(report: DriftReport) -> str:
    """One line: the verdict, and of an alarm every detector that raises it, with what moved."""
    if not report.alarm:
        return f"no drift in the last {report.n} requests (score {report.score:.4f}, alarm at {report.threshold:.4f})"
    if not report.alarming:
        return f"DRIFT in the last {report.n} requests (score {report.score:.4f}, alarm at {report.threshold:.4f})"
    return f"DRIFT in the last {report.n} requests: " + "; ".join(map(verdict, report.alarming))


def verdict(said: DetectorVerdict) -> str:
    """What one detector says, and how sure it is."""
    over = f" of {said.windows} windows together" if said.windows > 1 else ""
    moved = ", ".join(map(change, said.moved[:_SAID]))
    return (
        f"{said.name}{over} (score {said.score:.4f}, alarm at {said.threshold:.4f}, p = {said.p_value:.2g}"
        f"{', ' if moved else ''}{moved})"
    )


def change(moved: Moved) -> str:
    """What moved, from where to where."""
    return f"{moved.name} {moved.reference:.3g} → {moved.window:.3g}"
