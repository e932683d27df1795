"""Searches on a virtual clock: the driver as it is, with workers, features and trials that only take time.

    lab        what a configuration's curve is, and what its features cost: recorded, or made up; the clock
    shelf      features that are there, or are being computed
    workers    ask a policy for trials, share features, and report rung by rung
    ours       AutoVision's own policy, ready to be simulated

A trial first waits for the tables of frozen features that it needs. Whoever needs the same table works on it, too, and
so do idle workers; what is stored once is there for all. Then it reports at the end of each rung, and once more at the
deadline, as `autovision.trial.execution.Execution` does; heads that are trained together report together, as
`autovision.trial.batch.HeadBatch` does. Whoever is told not to go on frees its worker, and goes on from where it was if
it is given out again. Nothing sleeps: hours of many workers take seconds.
"""

from __future__ import annotations

from autovision.testing.simulation.lab import Lab, Rung, Table, VirtualClock, channels, tables_of
from autovision.testing.simulation.ours import SimulatedCost, simulate, simulated_driver
from autovision.testing.simulation.shelf import FeatureShelf, Task
from autovision.testing.simulation.workers import Policy, Seen, Simulation, between

__all__ = [
    "FeatureShelf",
    "Lab",
    "Policy",
    "Rung",
    "Seen",
    "SimulatedCost",
    "Simulation",
    "Table",
    "Task",
    "VirtualClock",
    "between",
    "channels",
    "simulate",
    "simulated_driver",
    "tables_of",
]
