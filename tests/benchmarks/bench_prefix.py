"""How fast frozen features are computed: the compiled prefix against eager PyTorch, in pairs, in one run.

    python tests/benchmarks/bench_prefix.py --json bench-results/

Every round times each way once, one after the other, so that a machine whose speed drifts slows them alike;
the ratio to channels-last is taken round by round. With all threads, and with the one that a trial has in a search
on processors. Random pixels: the arithmetic does not depend on what they show. About 6 minutes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import options, ratios, show, spread, write_json

from autovision.features.extract import FrozenPrefix
from autovision.model import backbone
from autovision.model.inference import compile_module, native_precision
from autovision.space.config import TrialConfig

BATCH = 32
BASE = "eager, channels last"


def ways(config: TrialConfig) -> dict[str, Callable[[np.ndarray], object]]:
    """The same features, computed in three ways."""
    prep = backbone.preprocessing(config)

    def module() -> FrozenPrefix:
        staged = backbone.load(config).staged
        return FrozenPrefix(staged, prep, None, range(len(staged))).eval()

    plain, channels_last = module(), module().to(memory_format=torch.channels_last)

    def eager(network: torch.nn.Module) -> Callable[[np.ndarray], object]:
        def run(pixels: np.ndarray) -> object:
            with torch.inference_mode():
                return network(torch.from_numpy(pixels))

        return run

    compiled = compile_module(module(), (prep.height, prep.width), precision=native_precision())
    return {
        "eager": eager(plain),
        BASE: eager(channels_last),
        f"{compiled.runtime} {native_precision()}": compiled,
    }


def measure(config: TrialConfig, rounds: int) -> dict[str, list[float]]:
    """Images per second of each way, round by round."""
    prep = backbone.preprocessing(config)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, prep.height, prep.width, 3), dtype=np.uint8)
    runs = ways(config)
    for run in runs.values():
        run(pixels)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run(pixels)
            rates[name].append(BATCH / (time.perf_counter() - began))
    return rates


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    names, resolutions = ["tf_efficientnet_lite0", "tf_efficientnet_lite2"], [160, 224]
    if chosen.quick:
        names, resolutions, chosen.rounds = names[:1], [64], 2
    rows: list[dict[str, Any]] = []
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        for name, resolution in itertools.product(names, resolutions):
            rates = measure(TrialConfig(backbone=name, resolution=resolution), chosen.rounds)
            for way, values in rates.items():
                found = {"images_s": values, "ratio": ratios(values, rates[BASE])}
                told = {"threads": threads, "backbone": name, "resolution": resolution, "way": way}
                rows.append(told | found)
    show(
        f"Pooled features of all stages, batch {BATCH}, n = {chosen.rounds}",
        ("threads", "backbone", "pixels", "way", "images/s", "ratio to channels last"),
        [
            [
                str(row["threads"]),
                row["backbone"],
                str(row["resolution"]),
                row["way"],
                spread(row["images_s"], 1),
                spread(row["ratio"]),
            ]
            for row in rows
        ],
        "min / median / max of rounds.",
    )
    write_json(chosen.json, "prefix", {"rounds": chosen.rounds, "quick": chosen.quick, "rows": rows})


if __name__ == "__main__":
    main()
