"""A training run as bytes, at the end of any epoch: one safetensors file, no pickles.

It holds what is trained, and nothing of the frozen part: the suffix, the optimizer, the moving average, the best
epoch so far. Rates, order, views and noise follow from the seed and the epoch, so that the epoch is all the state
that they have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from autovision.errors import CorruptObject
from autovision.store.protocol import AlreadyExists, ETagMismatch, KeyNotFound, Store
from autovision.trial.state import Best, Training

_FORMAT = 1
_HEAD = 8
"""bytes of a safetensors file that say how long its header is"""


def pack(run: Training) -> bytes:
    """The state after the last whole epoch."""
    tensors = {f"suffix.{name}": tensor for name, tensor in run.suffix.trained_state().items()}
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{name}": torch.as_tensor(value)
            for name, value in state.items()
            if value is not None
        }
    if run.ema is not None:
        tensors |= {f"ema.{i}": average for i, average in enumerate(run.ema.average)}
    if run.best is not None:
        tensors |= {f"best.{name}": tensor for name, tensor in run.best.tensors.items()}
    told = {
        "format": _FORMAT,
        "config": run.config.digest,
        "seed": run.seed,
        "epoch": run.epoch,
        "loss_sum": run.loss_sum,
        "loss_steps": run.loss_steps,
        "ema_updates": run.ema.updates if run.ema else 0,
        "best": [run.best.epoch, run.best.value] if run.best else None,
    }
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return bytes(save(whole, {"training": json.dumps(told)}))


def unpack(run: Training, data: bytes) -> None:
    """Put a new run into the state that was packed.

    Raises:
        CorruptObject: damaged, or of another configuration, seed or format.
    """
    told = _told(data)
    expected = {"format": _FORMAT, "config": run.config.digest, "seed": run.seed}
    if (found := {name: told.get(name) for name in expected}) != expected:
        raise CorruptObject(
            f"the checkpoint is of {found}, and this training is {expected}; delete it and begin anew"
        )
    tensors = load(data)
    run.suffix.load_trained(_below("suffix.", tensors))
    _load_optimizer(run, _below("optimizer.", tensors))
    if run.ema is not None:
        for i, average in enumerate(run.ema.average):
            average.copy_(tensors[f"ema.{i}"])
        run.ema.updates = told["ema_updates"]
    if told["best"] is not None:
        best = {name: tensor.to(run.device) for name, tensor in _below("best.", tensors).items()}
        epoch, value = told["best"]
        run.best = Best(epoch, value, best)
    run.epoch, run.loss_sum, run.loss_steps = told["epoch"], told["loss_sum"], told["loss_steps"]


def _told(data: bytes) -> dict[str, Any]:
    try:
        load(data)  # checks that what the header promises is there
        length = int.from_bytes(data[:_HEAD], "little")
        told = json.loads(json.loads(data[_HEAD : _HEAD + length])["__metadata__"]["training"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptObject(f"the checkpoint cannot be read ({error}); delete it and begin anew") from error
    return dict(told)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _load_optimizer(run: Training, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = tensor
    groups = run.optimizer.state_dict()["param_groups"]
    peaks = [group["peak"] for group in run.optimizer.param_groups]
    run.optimizer.load_state_dict({"state": state, "param_groups": groups})
    for group, peak in zip(run.optimizer.param_groups, peaks, strict=True):
        group["peak"] = peak


class Slot:
    """Where a trial's latest checkpoint is kept, so that another process can go on from there."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._etag: str | None = None
        """of what is there, as far as this process knows: what is large is not read to be replaced"""

    def load(self) -> bytes | None:
        """The latest checkpoint; None: there is none."""
        try:
            data, self._etag = self._store.get(self._key)
        except KeyNotFound:
            self._etag = None
            return None
        return data

    def save(self, data: bytes) -> None:
        """Replace what is there. Of two that write at once, either one's is kept: both are of the same training."""
        for _ in range(3):
            try:
                if self._etag is None:
                    self._etag = self._store.put_new(self._key, data)
                else:
                    self._etag = self._store.put_if(self._key, data, self._etag)
                return
            except AlreadyExists:
                self.load()
            except (ETagMismatch, KeyNotFound):
                self._etag = None

    def clear(self) -> None:
        self._store.delete(self._key)
        self._etag = None
