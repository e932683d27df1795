"""What a network costs where it is served: seconds, memory and size, measured before anything is trained.

Weights have no influence on that, so that random ones do. A process of its own measures, as a replica serves: what
this process holds already, and what it is doing, do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from autovision.errors import AutoVisionError
from autovision.model import backbone as backbones
from autovision.model import runtimes
from autovision.model.bundle import build_network
from autovision.model.inference import native_precision
from autovision.model.peak import peak_mb
from autovision.model.predictor import MAX_BATCH, Scorer
from autovision.records.base import Record
from autovision.records.runtimes import Runtime, named
from autovision.space.config import TrialConfig

_LEAST, _MOST_S = 10, 2.0
"""images that are timed one by one; seconds after which no more are"""
_PATIENCE_S = 600.0


class Footprint(Record):
    """What serving a network takes on this node.

    `size_mb` is in 10⁶ bytes, as `max_size_mb` is; memory too.
    """

    runtime: str
    """what it runs in, and how, such as `openvino bf16, 2 threads`"""
    latency_ms: float = Field(gt=0)
    """median of one image at a time, decoding and HTTP not included"""
    memory_mb: float = Field(gt=0)
    """the most that the process has held, after a full batch"""
    size_mb: float = Field(gt=0)
    """of the file of weights"""


def size_mb(config: TrialConfig, classes: int) -> float:
    """10⁶ bytes of a model's file of weights, without making any: its tensors; the header adds some kilobytes."""
    with torch.device("meta"):
        tensors = build_network(config, classes).state_dict().values()
    return float(sum(tensor.numel() * tensor.element_size() for tensor in tensors)) / 1e6


def architecture_of(config: TrialConfig) -> TrialConfig:
    """The same network with everything else as by default: what its footprint depends on."""
    names = (
        *("backbone", "resolution", "drop_stages", "taps", "pooling", "head", "head_width", "unfreeze"),
        *("adapters", "adapter_width", "test_time_augmentation"),
    )
    kept = {name: getattr(config, name) for name in names}
    # How much is trained matters to where adapters sit, and to nothing else.
    return TrialConfig(**kept | ({} if config.adapters else {"unfreeze": 0})).resolved()


def measure(
    config: TrialConfig, classes: int, runtime: Runtime | None = None, *, int8: Path | None = None
) -> Footprint:
    """Measure in a process of its own: some ten seconds, or twice that if the network was never converted here.

    Args:
        runtime: what runs the network; None: what models are evaluated on.
        int8: the quantized network's file, for `openvino-int8`.

    Raises:
        AutoVisionError: it cannot be served at all.
    """
    plain = config.with_(weights="random").model_dump(mode="json")
    task = json.dumps([plain, classes, runtime, int8 and str(int8)])
    # The first one may have to convert the network, which takes memory that serving does not.
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=task,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise AutoVisionError(
                f"what serving {config.backbone!r} takes could not be measured: {last}; leave out its backbone, or "
                "the limits"
            )
    return Footprint.model_validate_json(done.stdout.strip().splitlines()[-1])


def measure_here(
    config: TrialConfig, classes: int, runtime: Runtime | None = None, *, int8: Path | None = None
) -> Footprint:
    """Measure in this process, whose memory counts from its beginning."""
    torch.manual_seed(0)  # the same weights every time: a network that was converted before is found again
    threads = len(os.sched_getaffinity(0))
    network, precision = build_network(config, classes), native_precision()
    told = f"{runtime}, {threads} threads"
    weights = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    prep = backbones.preprocessing(config)
    size = prep.height, prep.width
    if runtime is None:
        scorer = Scorer.as_evaluated(network, size, precision, threads)
        told = f"{scorer.runtime} {precision}, {threads} threads"
    else:
        scorer = Scorer(runtimes.build(network, size, runtime, threads, int8=int8))
    one = np.zeros((1, *size, 3), np.uint8)
    scorer(one)
    seconds: list[float] = []
    until = time.perf_counter() + _MOST_S
    while len(seconds) < _LEAST or time.perf_counter() < until:
        began = time.perf_counter()
        scorer(one)
        seconds.append(time.perf_counter() - began)
    scorer(np.zeros((MAX_BATCH, *size, 3), np.uint8))
    return Footprint(
        runtime=told,
        latency_ms=1e3 * statistics.median(seconds),
        memory_mb=peak_mb(),
        size_mb=weights / 1e6,
    )


def main() -> None:
    config, classes, runtime, int8 = json.loads(sys.stdin.read())
    found = measure_here(
        TrialConfig.model_validate(config),
        classes,
        None if runtime is None else named(runtime),
        int8=None if int8 is None else Path(int8),
    )
    print(found.model_dump_json())


if __name__ == "__main__":
    main()
