"""A trial from its configuration to its trained tensors: nothing here knows Ray."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from safetensors.torch import load as load_tensors

from autovision.features.compute import OutOfTime
from autovision.model import backbone as backbones
from autovision.model import bundle
from autovision.model.network import Network, Suffix
from autovision.model.version import read_version
from autovision.records.models import ModelVersion
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.trial.checkpoint import Slot, pack, unpack
from autovision.trial.data import Labelled, joined, load_inputs
from autovision.trial.memory import allowance, is_out_of_memory, parts_that_fit, predict, release
from autovision.trial.state import Problem, Training
from autovision.trial.step import run_epoch
from autovision.trial.teaching import by_class, learnt_head, learnt_tensors, suffix_of, taught
from autovision.trial.train import RungReport, begin, fit, judged_state, rung_epochs
from autovision.trial.workbench import Workbench
from autovision.trial.world import World

_TRAINED = ("unfreeze", "adapters", "adapter_width")
"""what says which parts are trained, of networks whose heads read the same"""
_CHECKPOINT_EVERY_S = 20.0
_CHECKPOINT_OF_SEVERAL_EVERY_S = 2.0
"""several workers are more likely to lose one, and what they lose is that many times the work"""


@dataclass
class Trial:
    """One configuration on one data set version.

    Attributes:
        deadline: seconds since the epoch.
        must_report: compute features past the deadline, too, and give a value at least of the first epoch.
        initial: a bundle's tensors to start from instead of a new head; only what fits is taken.
        champion: the model that the trial's is to succeed: it says which images are new, and teaches the others.
        parts: in how many parts each batch is computed at least; more where memory is short.
        feature_s: seconds spent on features so far.
    """

    bench: Workbench
    dataset: str
    config: TrialConfig
    seed: int
    deadline: float
    initial: str | None = None
    champion: str | None = None
    must_report: bool = False
    parts: int = 1
    feature_s: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.splits = self.bench.splits(self.dataset, self.champion)
        self.suffix = self._untrained()

    def _untrained(self) -> Suffix:
        self.bench.channels(self.config)  # may draw random numbers, before they are set
        torch.manual_seed(self.seed)
        suffix = suffix_of(self.bench, self.config, len(self.splits.version.classes))
        return suffix.cuda() if torch.cuda.is_available() else suffix

    def run(self, *, world: World | None = None, slot: Slot | None = None) -> Iterator[RungReport]:
        """Train, yielding at each rung. Raises `NotFinite`, `OutOfTime` and `TooLarge`.

        Out of memory, it is tried once more with half of each batch at a time, whose gradients are accumulated.

        Args:
            world: the workers that train together; None: this one alone.
            slot: where a checkpoint is looked for, and kept from time to time.
        """
        world = world or World()
        started = time.monotonic()
        problem = world.jointly(self._problem)
        self.feature_s = time.monotonic() - started
        self.notes += self.bench.source(self.config).take_notes()
        reported = 0
        while True:
            try:
                for report in self._train(problem, world, slot):
                    if report.epoch > reported:  # what is trained again was reported before
                        reported = report.epoch
                        yield report
                break
            except Exception as error:
                if not is_out_of_memory(error) or self.parts > 1 or world.size > 1:
                    raise
            self._halve()
        if slot and world.rank == 0:
            slot.clear()

    def refit(self, epochs: int) -> bytes:
        """Train on train and validation together, for the first `epochs` of the schedule; head and unfrozen stages.

        Nothing judges it: what was chosen on validation (the configuration, the epoch) stays as it is.

        Raises:
            NotFinite, OutOfTime, TooLarge: it came to nothing.
        """
        both = (self._taught(self.splits.train), self._taught(self.splits.validation))
        self.splits = replace(self.splits, train=joined(*both))
        problem = self._problem()
        self._prepare(problem, None)
        self.training = Training(self.suffix, problem, self.config, self.seed, autocast=self._autocast())
        self.training.accumulate = self._admitted(self.training.world)
        while self.training.epoch < epochs:
            if run_epoch(self.training, self.deadline):
                raise OutOfTime
            self.training.epoch += 1
        return self.trained()

    def _train(self, problem: Problem, world: World, slot: Slot | None) -> Iterator[RungReport]:
        saved = world.jointly(lambda: self._prepare(problem, slot))
        world.align(self.suffix)
        self.training = Training(
            self.suffix, problem, self.config, self.seed, world, autocast=self._autocast()
        )
        world.jointly(lambda: self._take_up(saved))
        yield from fit(self.training, self.deadline, _Keeper(slot if world.rank == 0 else None, world.size))

    def _prepare(self, problem: Problem, slot: Slot | None) -> bytes | None:
        """The checkpoint to go on from; if there is none, the suffix is given what to start from."""
        saved = slot.load() if slot else None
        known = self._initial()
        if known is not None and known.keys() == self.suffix.trained_state().keys():
            # Also before a checkpoint is taken up: it is what L2-SP pulls towards.
            self.suffix.load_trained(known)
        elif saved is None:
            head = None if known is None else {n.removeprefix("head."): t for n, t in known.items()}
            begin(self.suffix, problem, self.config, self.seed, self.deadline, head)
        return saved

    def _take_up(self, saved: bytes | None) -> None:
        if saved is not None:
            unpack(self.training, saved)
            self.notes += (f"went on from a checkpoint after epoch {self.training.epoch}",)
        self.training.accumulate = self._admitted(self.training.world)

    def _admitted(self, world: World) -> int:
        """In how many parts a batch is computed. Raises `TooLarge`."""
        batch = -(-self.config.batch_size // world.size)
        device = self.training.device
        footprint, allowed = predict(self.training), allowance(device, torch.get_num_threads())
        parts = parts_that_fit(footprint, batch, allowed)
        if parts > self.parts:
            self.notes += (
                f"batches of {batch} would take {footprint.of(batch) / 1e6:,.0f} MB and {allowed / 1e6:,.0f} MB are "
                f"free: they are computed in {parts} parts, whose gradients are accumulated",
            )
        return max(parts, self.parts)

    def _halve(self) -> None:
        """Begin anew, with half of each batch at a time."""
        self.parts = 2 * self.training.accumulate
        del self.training
        self.suffix = self._untrained()
        release()
        self.notes += (
            f"out of memory: tried again with each batch in {self.parts} parts, gradients accumulated",
        )

    def _problem(self) -> Problem:
        source, channels = self.bench.source(self.config), self.bench.channels(self.config)
        deadline = math.inf if self.must_report else self.deadline
        train, validation = (
            load_inputs(source, split, self.config, channels, training=training, deadline=deadline)
            for split, training in ((self._taught(self.splits.train), True), (self.splits.validation, False))
        )
        return Problem(train, validation, self.splits.positive)

    def _taught(self, split: Labelled) -> Labelled:
        deadline = math.inf if self.must_report else self.deadline
        return taught(self.bench, self.splits, split, [self.config], deadline=deadline)

    def _autocast(self) -> bool:
        """Whether stages are trained in bf16: where this node is faster in it.

        A CPU is with AMX only. With AVX-512 alone the gradients of depthwise convolutions, which most small
        backbones are made of, take many times as long in bf16 as in float32.
        """
        if torch.cuda.is_available():
            return self.config.needs_maps and torch.cuda.is_bf16_supported()
        return self.config.needs_maps and torch.cpu._is_amx_tile_supported()

    def trained(self) -> bytes:
        """What validation judged last: head and unfrozen stages, as a safetensors file."""
        return bundle.tensors_file(judged_state(self.training))

    def _initial(self) -> dict[str, torch.Tensor] | None:
        """What the champion had trained, by the names of `Suffix.trained_state`: its knowledge is where this begins.

        All of it where the trial trains the very same parts, its head alone where others are trained; None where
        not even that fits. Rows of the head follow the names of the classes; a new class begins as in a new head. Of a
        model that was trained again on validation it is that of before: the images that this trial will be judged by
        are among those.
        """
        if self.initial is None:
            return None
        version = read_version(self.bench.store, self.initial)
        own = self.suffix.trained_state()
        if version.multi_label == self.splits.version.multi_label and self._reads_the_same(version):
            theirs = TrialConfig.model_validate(version.lineage.config)
            whole = all(getattr(theirs, name) == getattr(self.config, name) for name in _TRAINED)
            store = self.bench.store
            tensors = learnt_tensors(store, version, self.suffix) if whole else learnt_head(store, version)
            tensors = by_class(tensors, own, version.classes, self.splits.version.classes)
            if all(name in own and own[name].shape == tensor.shape for name, tensor in tensors.items()):
                return tensors
        self.notes += (f"the head of {self.initial} does not fit this configuration; the head starts anew",)
        return None

    def _reads_the_same(self, version: ModelVersion) -> bool:
        """Whether a model's head reads what this one's does; equal widths alone do not say so."""
        theirs = TrialConfig.model_validate(version.lineage.config)
        names = ("backbone", "weights", "drop_stages", "taps", "pooling", "head", "head_width")
        return all(getattr(theirs, name) == getattr(self.config, name) for name in names)


def weights_key(search: str, trial: str, data: bytes) -> str:
    return keys.trial_weights(search, trial, hashlib.sha256(data).hexdigest()[:16])


def assemble(bench: Workbench, config: TrialConfig, trained: bytes, classes: int) -> Network:
    """The whole network of a trial: frozen prefix, trained stages, head; in evaluation mode."""
    source, channels = bench.source(config), bench.channels(config)
    keep = backbones.kept_stages(config, len(channels))
    staged = copy.deepcopy(source.loaded.staged)
    staged.truncate(keep)
    suffix = Suffix(staged, config, channels[:keep], classes)
    suffix.load_trained(load_tensors(trained))
    # The suffix's stages are the very modules of `staged`, so the network below carries what was trained.
    return Network(staged, config, source.preprocessing, channels[:keep], classes).take(suffix).eval()


@dataclass
class _Keeper:
    """Keeps a checkpoint after an epoch, but not after every short one; after every rung of a fine-tuning.

    A trial that has reported may be paused, and go on later where it was.
    """

    slot: Slot | None
    workers: int
    _last: float = field(default_factory=time.monotonic)

    def __call__(self, run: Training) -> None:
        every_s = _CHECKPOINT_EVERY_S if self.workers == 1 else _CHECKPOINT_OF_SEVERAL_EVERY_S
        pausable = run.config.needs_maps and run.epoch in rung_epochs(run.config.epochs)
        if self.slot is not None and (pausable or time.monotonic() - self._last >= every_s):
            self.slot.save(pack(run))
            self._last = time.monotonic()
