"""Which runtime serves a model on this node: the fastest that agrees with PyTorch.

    speed    of each runtime: measured once for a network's structure and a kind of node
    lanes    whether images are answered sooner one by one, each on a thread: measured once as speed is
    parity   of a runtime with eager PyTorch on real images: measured once for a model and a kind of node

All are remembered in the store. Rule: the runtime that the model was evaluated with serves, unless another is faster
by a tenth, in the geometric mean of the times of one image and of a batch; int8 before both, where a verdict for this
kind of node accepted it. A runtime that is further from PyTorch than `runtimes.BOUNDS` allows is left out.

What holds: features and evaluation always run on the evaluated runtime, so that they see the same numbers. A server may
answer from another one; its answers are then those of the evaluation but for differences that were measured, and are
within the bounds.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch

from autovision.errors import AutoVisionError, CorruptObject, InvalidInput, NotFound, StoreUnavailable
from autovision.model import bundle, lanes, runtimes
from autovision.model.compiled import Compiled, OnnxModule, OpenVinoModule, default_threads
from autovision.model.predictor import Predictor, Scorer
from autovision.model.version import read_version
from autovision.provenance import code_version
from autovision.records.base import digest_of, now
from autovision.records.models import ModelVersion
from autovision.records.runtimes import (
    AUTO,
    EVALUATED,
    Lanes,
    LaneSpeeds,
    Parity,
    Quantized,
    Runtime,
    RuntimeParity,
    RuntimeSpeeds,
    Timing,
    check_choice,
    named,
)
from autovision.registry import parity, quantized, ready
from autovision.registry.parity import Answers, Sample
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

WORTH = 1.10
"""so many times faster than the evaluated runtime must another be to take its place"""

_IMAGES = 32

_log = logging.getLogger(__name__)


class RuntimeRefused(AutoVisionError):
    """The runtime may not serve this model; use another one, or leave the choice to `auto`."""


def load(
    store: Store,
    model_id: str,
    *,
    threads: int | None = None,
    runtime: str = AUTO,
    measure: bool = True,
) -> Predictor:
    """A model on the runtime that serves it: some seconds, and some more if its structure is new to this kind of node.

    Args:
        runtime: one of `records.runtimes.RUNTIMES`; `auto`: by the rule above; `evaluated`: the one that it was
            evaluated with.
        measure: whether speeds that are not known are measured; a process that serves meanwhile had better not, and
            goes on with the evaluated runtime.

    Raises:
        NotFound: no such model.
        InvalidInput: no such runtime, or not on this node.
        RuntimeRefused: a runtime that was asked for disagrees with PyTorch, or cannot run the network.
    """
    check_choice(runtime)
    threads = threads or default_threads()
    here = OnThisNode(store, read_version(store, model_id), threads)
    chosen = here.chosen(measure) if runtime == AUTO else here.asked_for(runtime)
    _log.info("model %s is served by %s", model_id, chosen)
    compiled = here.compiled(chosen)
    in_lanes, are_sure = here.lanes(chosen, measure)
    # Without speeds it is what the model was evaluated with, for now.
    is_sure = runtime != AUTO or here.speeds(measure=False) is not None
    ready.note(store, here.model, threads, runtime, chosen, compiled, in_lanes, sure=are_sure and is_sure)
    return Predictor.warm(here.model, Scorer(compiled), threads)


def ranked(timings: Mapping[Runtime, Timing], evaluated: Runtime) -> list[Runtime]:
    """The one that should serve, then the others, the fastest first.

    The evaluated one comes before all that are not faster by `WORTH`: also where those before it are left out.
    """
    by_speed = sorted(timings, key=lambda runtime: timings[runtime].one_ms * timings[runtime].batch_ms)
    if evaluated not in timings:
        return by_speed
    faster = [each for each in by_speed if runtimes.speedup(timings[evaluated], timings[each]) >= WORTH]
    return [*faster, evaluated, *(each for each in by_speed if each not in faster and each != evaluated)]


class OnThisNode:
    """A model's runtimes here: each is built when it is first wanted, and what was measured before is not again.

    Attributes:
        evaluated: the runtime that the model was evaluated with.
    """

    def __init__(self, store: Store, model: ModelVersion, threads: int) -> None:
        self._store, self.model, self._threads = store, model, threads
        self._network = bundle.load_network(store, model)
        self.size = model.preprocessing.height, model.preprocessing.width
        self.evaluated = runtimes.evaluated_on(model.precision)
        self._built: dict[Runtime, Compiled] = {}

    # ---------------------------------------------------------------------------------------------- choosing

    def chosen(self, measure: bool, *, int8: bool = True) -> Runtime:
        """The runtime that serves by the rule. Raises `RuntimeRefused` if none agrees, which eager always does.

        Args:
            int8: whether it may be that.
        """
        for runtime in self._order(measure):
            if runtime == "openvino-int8" and not int8:
                continue
            try:
                self.compiled(runtime)
                found = self.parity(runtime)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - converters fail in many ways, and eager always works
                _log.warning("runtime %s cannot run model %s: %s", runtime, self.model.id, error)
                continue
            if self._may_serve(runtime, found):
                return runtime
            why = found or "it was never compared with PyTorch"
            _log.warning("runtime %s is left out for model %s: %s", runtime, self.model.id, why)
        raise RuntimeRefused(f"no runtime of this node agrees with PyTorch on model {self.model.id!r}")

    def asked_for(self, wanted: str) -> Runtime:
        """A runtime that a person named, if it may serve. Raises `RuntimeRefused`, `InvalidInput`."""
        runtime = self.evaluated if wanted == EVALUATED else named(wanted)
        if runtime == "openvino-int8":
            self._int8()
        try:
            self.compiled(runtime)
        except AutoVisionError:
            raise
        except Exception as error:
            if wanted == EVALUATED:  # as the evaluation itself did
                _log.warning("runtime %s cannot run model %s: %s", runtime, self.model.id, error)
                return "eager-f32"
            raise RuntimeRefused(
                f"runtime {runtime!r} cannot run model {self.model.id!r} ({type(error).__name__}: {error}); use auto"
            ) from error
        found = self.parity(runtime)
        if self._may_serve(runtime, found):
            return runtime
        if wanted == EVALUATED:
            _log.warning("the runtime that model %s was evaluated with: %s", self.model.id, found)
            return runtime
        raise RuntimeRefused(
            f"runtime {runtime!r} does not agree with PyTorch on model {self.model.id!r}: "
            f"{found or 'there are no images to compare on'}; use auto"
        )

    def _may_serve(self, runtime: Runtime, found: Parity | None) -> bool:
        """Without images to compare on, only what was evaluated, and PyTorch itself."""
        return runtime in (self.evaluated, "eager-f32") if found is None else found.within

    def _order(self, measure: bool) -> list[Runtime]:
        """What is tried, one after the other."""
        offered = list(runtimes.candidates(self.model.precision))
        accepted = quantized.read(self._store, self.model.id, self._threads)
        first: list[Runtime] = ["openvino-int8"] if accepted is not None and accepted.accepted else []
        if torch.cuda.is_available():
            return [*offered, "torch-f32"]  # compiling takes a minute, and nothing else comes near it
        speeds = self.speeds(measure)
        if speeds is None:
            return [*first, *offered]
        timings = {named(name): timing for name, timing in speeds.timings.items()}
        return [*first, *ranked(timings, self.evaluated)]

    # --------------------------------------------------------------------------------------------- measuring

    def compiled(self, runtime: Runtime) -> Compiled:
        if runtime not in self._built:
            if runtime.startswith("torch"):
                _ = self._reference  # before the network is moved to the GPU
            int8 = self._int8() if runtime == "openvino-int8" else None
            path = None if int8 is None else quantized.file_of(self._store, self.model, int8)
            self._built[runtime] = runtimes.build(self._network, self.size, runtime, self._threads, int8=path)
        return self._built[runtime]

    def _int8(self) -> Quantized:
        found = quantized.read(self._store, self.model.id, self._threads)
        make = f"`autovision model quantize {self.model.id}`"
        if found is None:
            raise RuntimeRefused(
                f"model {self.model.id!r} has no int8 form for nodes of this kind; {make} makes one"
            )
        if not found.accepted:
            raise RuntimeRefused(
                f"int8 may not serve model {self.model.id!r} on nodes of this kind: {quantized.refusals(found)}; "
                f"use auto, or try again with {make}"
            )
        return found

    def speeds(self, measure: bool = True) -> RuntimeSpeeds | None:
        """How fast the runtimes are for this structure, int8 apart; None if it is not known and not measured."""
        offered = runtimes.candidates(self.model.precision)
        node, structure = runtimes.node(self._threads), runtimes.structure(self._network, self.size)
        key = keys.runtime_speeds(digest_of([structure, node, offered, runtimes.versions()]))
        try:
            return records.read(self._store, key, RuntimeSpeeds)
        except KeyNotFound:
            if not measure:
                return None
        failed = {}
        for runtime in offered:
            try:
                self.compiled(runtime)
            except Exception as error:  # noqa: BLE001 - converters fail in many ways, and eager always works
                failed[runtime] = f"{type(error).__name__}: {error}"
        working = {runtime: self.compiled(runtime) for runtime in offered if runtime not in failed}
        timings = runtimes.timings(working, self.size)
        found = RuntimeSpeeds(
            node=node, structure=structure, timings=dict(timings), failed=failed, created_at=now()
        )
        return records.create_or_read(self._store, key, found)[0]

    def lanes(self, runtime: Runtime, measure: bool = True) -> tuple[Lanes | None, bool]:
        """How a runtime is best called by several at once, if it is, and whether that was measured undisturbed.

        If not, it is tried for a moment: those that compute meanwhile disturb lanes and batches alike.
        """
        compiled = self.compiled(runtime)
        if self._threads == 1 or not isinstance(compiled, OnnxModule | OpenVinoModule):
            return None, True
        if self.model.size_bytes >= ready.SHARED_BELOW:
            return None, True
        node, structure = runtimes.node(self._threads), runtimes.structure(self._network, self.size)
        key = keys.lane_speeds(digest_of([structure, node, runtime, runtimes.versions(), lanes.METHOD]))
        with suppress(KeyNotFound):
            return lanes.decided(records.read(self._store, key, LaneSpeeds).timings), True
        narrow = compiled.side_by_side(self._threads)
        found = lanes.timings(
            compiled, narrow, self._threads, self.size, most_s=lanes.MOST_S if measure else 0
        )
        if not measure:
            return lanes.decided(found), False
        made = LaneSpeeds(node=node, structure=structure, runtime=runtime, timings=found, created_at=now())
        return lanes.decided(records.create_or_read(self._store, key, made)[0].timings), True

    def parity(self, runtime: Runtime) -> Parity | None:
        """How close it is to PyTorch; None if there are no images to tell from."""
        bound = runtimes.BOUNDS[runtimes.precision_of(runtime)]
        node = runtimes.node(self._threads)
        made_of = [runtime, node, runtimes.versions(), code_version(), bound.model_dump(mode="json")]
        if runtime == "openvino-int8":
            made_of.append(self._int8().files)
        key = keys.runtime_parity(self.model.id, digest_of(made_of)[:32])
        try:
            return records.read(self._store, key, RuntimeParity).parity
        except KeyNotFound:
            pass
        if self._reference is None:
            return None
        sample, pixels, reference = self._reference
        found = parity.compare(
            self.model, sample, reference, parity.answers(self.model, self.compiled(runtime), pixels), bound
        )
        made = RuntimeParity(model=self.model.id, runtime=runtime, node=node, parity=found, created_at=now())
        return records.create_or_read(self._store, key, made)[0].parity

    @functools.cached_property
    def _reference(self) -> tuple[Sample, np.ndarray, Answers] | None:
        """Real images, and what PyTorch says of them; None if the data set is gone."""
        try:
            sample = parity.sample(self._store, self.model, _IMAGES)
            pixels = parity.pixels_of(self._store, self.model, sample, self._threads)
        except (NotFound, CorruptObject, InvalidInput) as error:
            _log.warning("runtimes of model %s are not compared with PyTorch: %s", self.model.id, error)
            return None
        return sample, pixels, parity.eager(self.model, self._network, pixels)
