"""Several workers that train one trial together, by distributed data parallelism (Li et al. 2020).

Each computes its part of every batch; gradients are averaged while the backward pass is still under way. Whatever
is random was drawn for the whole batch, so that any number of workers gives what one alone would give.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from autovision.errors import AutoVisionError
from autovision.features import budget, tasks
from autovision.features.compute import OutOfTime, nobody
from autovision.store.open import open_store
from autovision.trial.assignment import Assignment
from autovision.trial.execution import Execution
from autovision.trial.step import NotFinite
from autovision.trial.workbench import Workbench
from autovision.trial.world import T, World

_ASK_S = 0.5
"""between two questions of the workers whether they are to stop"""


class DistributedWorld(World):
    """The workers of this process's group, which has to be there already: `torch.distributed` over NCCL or gloo.

    Args:
        stopped: whether somebody wants training to end now; only the first worker asks.
    """

    def __init__(self, stopped: Callable[[], bool] = lambda: False) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._stopped = stopped
        self._joint: BaseException | None = None
        # What NCCL sends has to lie on this worker's GPU.
        nccl = dist.get_backend() == dist.Backend.NCCL
        self.device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")

    def wrap(self, module: nn.Module) -> nn.Module:
        # Buffers never change here. Of a family that was never seen some parameters may take no part in the output.
        return DistributedDataParallel(
            module,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )

    @contextmanager
    def unsynchronized(self, module: nn.Module) -> Iterator[None]:
        assert isinstance(module, DistributedDataParallel)
        with module.no_sync():
            yield

    def align(self, module: nn.Module) -> None:
        with torch.no_grad():
            for tensor in [*module.parameters(), *module.buffers()]:
                first = tensor.contiguous()
                dist.broadcast(first, 0)
                tensor.copy_(first)

    def jointly(self, work: Callable[[], T]) -> T:
        failed: BaseException | None = None
        try:
            result = work()
        except (AutoVisionError, OutOfTime, NotFinite) as error:
            failed = error
        everyone: list[BaseException | None] = [None] * self.size
        dist.all_gather_object(everyone, failed)
        self._joint = next((error for error in everyone if error is not None), None)
        if self._joint is not None:
            raise self._joint
        return result

    def is_joint(self, error: BaseException) -> bool:
        # Whether a loss is finite is asked of all workers, so that all of them raise.
        return error is self._joint or isinstance(error, NotFinite)

    def late(self, deadline: float) -> bool:
        return self.any(time.time() >= deadline or (self.rank == 0 and self._stopped()))

    def any(self, flag: bool) -> bool:
        return bool(self._sum(torch.tensor([float(flag)])) > 0)

    def total(self, value: float) -> float:
        return float(self._sum(torch.tensor([value], dtype=torch.float64)))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        end = self._sum(counts).cumsum(0).tolist()
        everything = torch.zeros(end[-1], *rows.shape[1:])
        everything[end[self.rank] - len(rows) : end[self.rank]] = torch.from_numpy(rows)
        return self._sum(everything).numpy()

    def _sum(self, tensor: Tensor) -> Tensor:
        """Over all workers."""
        summed = tensor.to(self.device)
        dist.all_reduce(summed)
        return summed.cpu()


def carry_out(settings: dict[str, Any]) -> None:
    """What each worker does: all of them advance together, and the first one reports."""
    task, desk = Assignment.model_validate(settings["assignment"]), settings["desk"]
    torch.set_num_threads(task.threads)
    world = DistributedWorld(_Question(desk))
    before = ray.get(desk.begin.remote()) if world.rank == 0 else None
    helpers = tasks.idle_workers if world.rank == 0 else nobody  # one asks for all
    bench = Workbench(open_store(task.store), task.threads, budget.configured_bytes(), helpers)
    execution = Execution(bench, task, world=world, started=settings["started"], before=before)
    goes_on = True
    while goes_on:
        result = execution.step()
        goes_on = world.any(world.rank == 0 and ray.get(desk.report.remote(result)))


class _Question:
    """Whether workers are to stop; asked as often as one likes, and passed on now and then."""

    def __init__(self, desk: Any) -> None:
        self._desk, self._asked = desk, time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self._asked < _ASK_S:
            return False
        self._asked = time.monotonic()
        return bool(ray.get(self._desk.stopped.remote()))
