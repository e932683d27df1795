"""How much memory training takes, found out before it begins; and what to do when there is too little.

predict       bytes at the peak of a step, from one small forward pass
allowance     bytes that a trial may take on this node
parts_that_fit  in how many parts a batch has to be computed, with the same result
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from autovision.errors import AutoVisionError
from autovision.model.noise import Noise
from autovision.trial.state import Training

_SAMPLE = 2
_WORKSPACE = 1.1
"""what kernels and the allocator take beyond the tensors that are counted"""
_SHARE = 0.9
"""of the memory that is free: other processes take some, too"""
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


class TooLarge(AutoVisionError):
    """Training does not fit into memory even image by image; take a smaller backbone, or unfreeze less."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that training takes beside the network itself.

    Attributes:
        fixed: gradients, the optimizer's state, the moving average: whatever the batch.
        image: of each image of a batch that is computed at once: input, saved activations, their gradients.
    """

    fixed: int
    image: int

    def of(self, images: int) -> int:
        """Bytes at the peak of a step that computes so many images at once."""
        return round(_WORKSPACE * (self.fixed + images * self.image))


def predict(run: Training) -> Footprint:
    """What a training run will take: counted in a forward pass of two empty images, without their like stored."""
    trained = sum(
        p.numel() * p.element_size() for group in run.optimizer.param_groups for p in group["params"]
    )
    for stage in run.suffix.trained_stages():
        stage.requires_grad_(True)  # as in the last epoch; each epoch unlocks what it trains
    # Gradients and two moments, or one.
    copies = 3 if run.config.optimizer == "adamw" else 2
    copies += (1 if run.config.ema else 0) + (2 if run.config.patience else 0)
    fixed = trained * copies + sum(p.numel() * p.element_size() for p in run.start)
    prefix = run.problem.train.prefix
    shape = prefix.activation_shape
    activation = None if shape is None else torch.zeros(_SAMPLE, *shape, device=run.device)
    below = torch.zeros(_SAMPLE, prefix.width, device=run.device) if prefix.width else None
    inputs = sum(x.numel() * x.element_size() for x in (activation, below) if x is not None)
    with (
        _counting(run.suffix) as saved,
        torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast),
    ):
        run.suffix(activation, below, Noise(0, _SAMPLE))
    # As it is read, as float32, the partners', and mixed; and the next batch, which is loaded meanwhile.
    copies_of_input = 6 if run.config.mixup or run.config.cutmix else 3
    # The backward pass holds the gradient of an activation beside it, of the largest one at a time.
    largest = max(saved.values(), default=0)
    return Footprint(fixed, (copies_of_input * inputs + sum(saved.values()) + 2 * largest) // _SAMPLE)


@contextmanager
def _counting(suffix: nn.Module) -> Iterator[dict[int, int]]:
    """Storage -> bytes of what a forward pass keeps for the backward pass, parameters left out."""
    own = {t.untyped_storage().data_ptr() for t in [*suffix.parameters(), *suffix.buffers()]}
    saved: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no storage is freed and counted again for another

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def share_gpu(share: float) -> None:
    """Take no more than so much of the memory of this process's GPU: beyond that torch says that there is none."""
    if torch.cuda.is_available() and share != torch.cuda.get_per_process_memory_fraction():
        torch.cuda.set_per_process_memory_fraction(share)


def allowance(device: torch.device, threads: int) -> int:
    """Bytes that a trial with so many of the node's CPUs, or with this GPU or its share of it, may take now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return round(_SHARE * min(free, total * torch.cuda.get_per_process_memory_fraction(device)))
    share = min(1.0, threads / max(1, len(os.sched_getaffinity(0))))
    return round(_SHARE * share * _free())


def _free() -> int:
    """Bytes that are free here: of the machine, or of the container if that is less."""
    free = psutil.virtual_memory().available
    for limit, used in _CGROUPS:
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # another kind of cgroup, or "max": no limit
            continue
    return max(0, free)


def parts_that_fit(footprint: Footprint, batch: int, allowed: int) -> int:
    """The least number of parts, a power of two, in which a batch fits. Raises `TooLarge`."""
    parts = 1
    while footprint.of(-(-batch // parts)) > allowed:
        if parts >= batch:
            raise TooLarge(
                f"training needs {footprint.of(1) / 1e6:,.0f} MB even image by image, and this trial may take "
                f"{allowed / 1e6:,.0f} MB; choose a smaller resolution or backbone, unfreeze fewer stages, or give "
                "trials more memory"
            )
        parts *= 2
    return parts


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The second is what oneDNN says when it cannot allocate.
    said = ("can't allocate memory", "could not create a primitive")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


def release() -> None:
    """Give back what is no longer referred to."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
