"""Two workers, which are two processes that talk over gloo, give what one gives."""

from __future__ import annotations

import io
import math
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from autovision.errors import AutoVisionError, InvalidInput
from autovision.features.compute import OutOfTime
from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.trial.checkpoint import pack, unpack
from autovision.trial.distributed import DistributedWorld
from autovision.trial.folds import rows_of
from autovision.trial.state import Problem, Training
from autovision.trial.step import NotFinite
from autovision.trial.train import RungReport, fit, judged_state
from autovision.trial.world import World

MakeHead = Callable[..., Suffix]
MakeMaps = Callable[..., tuple[Suffix, Problem]]
Answer = Any
Pair = Callable[[Callable[[DistributedWorld], Answer]], list[Answer]]


# --------------------------------------------------------------------------------------------- two processes


def attend(rank: int, meeting: str, told: Connection) -> None:
    """What each process does: one job after the other, all in the same group."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    while (job := told.recv_bytes()) != b"":
        try:
            answer: Answer = pickle.loads(job)(DistributedWorld())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to hear of it
            answer = error
        told.send_bytes(pickle.dumps(answer))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Has two processes do a job; the answers of both, where an exception is an answer, too."""
    meeting = tmp_path_factory.mktemp("meeting") / "file"
    context = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[3]))  # where the processes find this module
        ends, processes = [], []
        for rank in range(2):
            here, there = context.Pipe()
            processes.append(context.Process(target=attend, args=(rank, str(meeting), there), daemon=True))
            processes[-1].start()
            ends.append(here)

        def run(job: Callable[[DistributedWorld], Answer]) -> list[Answer]:
            for end in ends:
                end.send_bytes(pickle.dumps(job))
            return [pickle.loads(end.recv_bytes()) for end in ends]

        yield run
        for end in ends:
            end.send_bytes(b"")
        for process in processes:
            process.join(30)
            assert process.exitcode == 0


# -------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Learn:
    """A job: train, and tell what came of it.

    Attributes:
        accumulate: parts of each batch, for each worker.
        resume: a checkpoint.
    """

    suffix: bytes
    problem: Problem
    config: TrialConfig
    accumulate: tuple[int, int] = (1, 1)
    resume: bytes | None = None

    @classmethod
    def of(cls, suffix: Suffix, problem: Problem, config: TrialConfig, **more: Any) -> Learn:
        data = io.BytesIO()
        torch.save(suffix, data)
        return cls(data.getvalue(), problem, config, **more)

    def training(self, world: World) -> Training:
        suffix = torch.load(io.BytesIO(self.suffix), weights_only=False)
        if world.rank:  # what the first worker has is what counts
            torch.nn.init.normal_(suffix.head.out.weight)
        world.align(suffix)
        run = Training(suffix, self.problem, self.config, 0, world, accumulate=self.accumulate[world.rank])
        if self.resume is not None:
            unpack(run, self.resume)
        return run

    def __call__(self, world: World) -> tuple[list[RungReport], dict[str, np.ndarray]]:
        run = self.training(world)
        reports = list(fit(run, math.inf))
        return reports, {name: tensor.numpy() for name, tensor in judged_state(run).items()}


def assert_same(one: Any, other: Any, *, tolerance: float = 1e-5) -> None:
    (reports, weights), (other_reports, other_weights) = one, other
    assert [(r.rung, r.epoch, r.last) for r in reports] == [(r.rung, r.epoch, r.last) for r in other_reports]
    for mine, theirs in zip(reports, other_reports, strict=True):
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(mine.logits, theirs.logits, rtol=tolerance, atol=tolerance)
    assert weights.keys() == other_weights.keys()
    for name, tensor in weights.items():
        np.testing.assert_allclose(tensor, other_weights[name], rtol=tolerance, atol=tolerance, err_msg=name)


FINE = TrialConfig(backbone="test_resnet", unfreeze=1, epochs=3, lr=1e-2, batch_size=20, optimizer="sgd")
IMAGES = 58
"""batches of 20 leave 18, of 19 leave one"""

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "adamw": {"optimizer": "adamw", "lr": 1e-3},
    "everything that is random": {
        "mixup": 0.4,
        "cutmix": 1.0,
        "dropout": 0.3,
        "drop_path": 0.2,
        "ema": 0.9,
        "sampling": "balanced",
    },
    "gradual unfreezing": {"unfreeze": 3, "unfreeze_schedule": "gradual", "epochs": 6},
    "pull towards the start": {"l2_sp": 0.1, "clip_norm": 0.5},
    "early stopping": {"patience": 2, "ema": 0.5},
    "after a champion": {"new_weight": 5.0, "distill": 0.5, "mixup": 0.4},
    "adapters": {"adapters": 1, "head": "mlp"},
    "attention": {"unfreeze": 0, "head": "attention", "head_width": 32},
    "odd batches": {"batch_size": 13},
    "a last batch of one image": {"batch_size": 19},
    "a last batch of one image, mixed": {"batch_size": 19, "mixup": 0.4, "dropout": 0.3},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_workers_give_what_one_gives(recipe: str, pair: Pair, on_maps: MakeMaps) -> None:
    config = FINE.with_(**RECIPES[recipe])
    job = Learn.of(*on_maps(config, images=IMAGES), config)
    alone = job(World())
    first, second = pair(job)
    assert_same(first, alone)
    assert_same(second, first, tolerance=0)


def test_a_head_alone_too(pair: Pair, problem: Problem, head_of: MakeHead) -> None:
    config = TrialConfig(epochs=3, batch_size=17, dropout=0.3, mixup=0.2, optimizer="sgd")
    job = Learn.of(head_of(config), problem, config)
    first, second = pair(job)
    assert_same(first, job(World()))
    assert_same(second, first, tolerance=0)


@pytest.mark.parametrize("accumulate", [(2, 2), (1, 3)])
def test_parts_of_each_workers_part_change_nothing(
    accumulate: tuple[int, int], pair: Pair, on_maps: MakeMaps
) -> None:
    config = FINE.with_(mixup=0.4, dropout=0.3, batch_size=19)
    job = Learn.of(*on_maps(config, images=IMAGES), config)
    first, _ = pair(replace(job, accumulate=accumulate))
    assert_same(first, job(World()))


def test_two_workers_go_on_from_what_one_left(pair: Pair, on_maps: MakeMaps) -> None:
    config = FINE.with_(ema=0.9, unfreeze=2, unfreeze_schedule="gradual")
    job = Learn.of(*on_maps(config, images=IMAGES), config)
    taken: list[bytes] = []
    run = job.training(World())
    reports = list(fit(run, math.inf, lambda run: taken.append(pack(run))))
    first, _ = pair(replace(job, resume=taken[0]))
    alone = {name: tensor.numpy() for name, tensor in judged_state(run).items()}
    # The rung at the checkpoint is told again: its report may have been lost with whoever waited for it.
    assert_same(first, (reports, alone))


def test_fewer_images_to_judge_by_than_workers(pair: Pair, on_maps: MakeMaps) -> None:
    suffix, problem = on_maps(FINE, images=IMAGES)
    labelled = rows_of(problem.validation.labelled, np.arange(1))
    prefix = replace(problem.validation.prefix, activation=problem.validation.prefix.activation[:, :1])  # type: ignore[type-var,attr-defined]
    problem = replace(problem, validation=replace(problem.validation, labelled=labelled, prefix=prefix))
    job = Learn.of(suffix, problem, FINE)
    first, _ = pair(job)
    assert first[0][-1].logits.shape == (1, 2)
    assert_same(first, job(World()))


# ---------------------------------------------------------------------------------------------- ending together


@dataclass(frozen=True)
class LearnUntil(Learn):
    """Train until a deadline, which each worker may see at another time, or until somebody stops it."""

    deadlines: tuple[float, float] = (math.inf, math.inf)
    stopped: tuple[bool, bool] = (False, False)

    def __call__(self, world: World) -> Answer:
        asked = DistributedWorld(lambda: self.stopped[world.rank])
        return [(r.epoch, r.last) for r in fit(self.training(asked), self.deadlines[world.rank])]


@pytest.mark.parametrize("early", [0, 1])
def test_a_deadline_that_one_worker_sees_ends_both(early: int, pair: Pair, on_maps: MakeMaps) -> None:
    deadlines = tuple(0.0 if rank == early else math.inf for rank in range(2))
    job = LearnUntil.of(*on_maps(FINE, images=IMAGES), FINE, deadlines=deadlines)
    assert pair(job) == [[(1, True)]] * 2


def test_who_is_stopped_ends_like_at_a_deadline(pair: Pair, on_maps: MakeMaps) -> None:
    job = LearnUntil.of(*on_maps(FINE, images=IMAGES), FINE, stopped=(True, False))
    assert pair(job) == [[(1, True)]] * 2


@dataclass(frozen=True)
class LearnNothing(Learn):
    """Train with an input on one worker that no loss is finite with."""

    def __call__(self, world: World) -> Answer:
        run = self.training(world)
        if world.rank == 1:
            run.weights = run.weights.clone()
            run.weights[:] = math.inf
        try:
            return list(fit(run, math.inf))
        except NotFinite as error:
            return world.is_joint(error), str(error)


def test_a_loss_that_is_not_finite_on_one_worker_fails_both(pair: Pair, on_maps: MakeMaps) -> None:
    answers = pair(LearnNothing.of(*on_maps(FINE, images=IMAGES), FINE))
    for joint, text in answers:
        assert joint
        assert "in epoch 1 at lr=0.01; lower the learning rate" in text


@dataclass(frozen=True)
class Prepare:
    """Do something of one's own before training together; some workers fail."""

    failures: tuple[Exception | None, Exception | None]

    def __call__(self, world: World) -> Answer:
        def work() -> str:
            if (error := self.failures[world.rank]) is not None:
                raise error
            return f"of {world.rank}"

        try:
            return world.jointly(work)
        except (AutoVisionError, OutOfTime) as error:
            return type(error), str(error), world.is_joint(error), world.is_joint(InvalidInput("alone"))


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize("error", [InvalidInput("no such backbone"), OutOfTime("too late")])
def test_what_one_worker_fails_with_before_training_all_fail_with(
    failing: int, error: Exception, pair: Pair
) -> None:
    failures = tuple(error if rank == failing else None for rank in range(2))
    assert pair(Prepare(failures)) == [(type(error), str(error), True, False)] * 2  # type: ignore[arg-type]


def test_what_all_manage_everybody_has(pair: Pair) -> None:
    assert pair(Prepare((None, None))) == ["of 0", "of 1"]


# -------------------------------------------------------------------------------------------------- exchanging


def exchange(world: World) -> Answer:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)[: 1 + 2 * world.rank] + 10 * world.rank
    return (
        world.gather(rows).tolist(),
        world.gather(rows[:0] if world.rank else rows).tolist(),
        world.total(0.1 + world.rank),
        [world.any(False), world.any(world.rank == 0), world.any(world.rank == 1), world.any(True)],
    )


def test_rows_totals_and_flags(pair: Pair) -> None:
    every = [[0.0, 1.0], [10.0, 11.0], [12.0, 13.0], [14.0, 15.0]]
    for gathered, of_one, total, flags in pair(exchange):
        assert gathered == every
        assert of_one == every[:1]
        assert total == pytest.approx(1.2, abs=1e-12)
        assert flags == [False, True, True, True]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("batch", [0, 1, 2, 5, 64])
def test_the_parts_of_a_batch_are_all_of_it_and_alike(size: int, batch: int) -> None:
    world = World()
    world.size = size
    rows: list[int] = []
    lengths = set()
    for world.rank in range(size):
        part = world.part(batch)
        rows += range(part.start, part.stop)
        lengths.add(part.stop - part.start)
    assert rows == list(range(batch))
    assert max(lengths) - min(lengths) <= 1
