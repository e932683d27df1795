"""How fast frozen features are computed: the compiled prefix against eager PyTorch, in pairs, in one run.

    python tests/benchmarks/bench_prefix.py --json bench-results/

Every round times each way once, one after the other, so that a machine whose speed drifts slows them alike;
the ratio is taken round by round. Random pixels: the arithmetic does not depend on what they show.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from autovision.model import backbone
from autovision.model.inference import compile_module, native_precision
from autovision.model.network import PooledExtractor
from autovision.space.config import TrialConfig

BATCH = 32


def ways(config: TrialConfig) -> dict[str, Callable[[np.ndarray], object]]:
    """The same features, computed in three ways."""
    prep = backbone.preprocessing(config)

    def module() -> PooledExtractor:
        return PooledExtractor(backbone.load(config).staged, prep).eval()

    plain, channels_last = module(), module().to(memory_format=torch.channels_last)

    def eager(network: torch.nn.Module) -> Callable[[np.ndarray], object]:
        def run(pixels: np.ndarray) -> object:
            with torch.inference_mode():
                return network(torch.from_numpy(pixels))

        return run

    compiled = compile_module(module(), (prep.height, prep.width), precision=native_precision())
    return {
        "eager": eager(plain),
        "eager, channels last": eager(channels_last),
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="folder for the figures")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    table = Table(title=f"Pooled features of all stages, batch {BATCH}, {torch.get_num_threads()} threads")
    for column in (
        "backbone",
        "pixels",
        "way",
        "images/s (min, median, max)",
        "ratio to eager (min, median, max)",
    ):
        table.add_column(column)
    rows = []
    for name in ("tf_efficientnet_lite0", "tf_efficientnet_lite2"):
        for resolution in (160, 224):
            rates = measure(TrialConfig(backbone=name, resolution=resolution), options.rounds)
            for way, values in rates.items():
                ratios = [value / base for value, base in zip(values, rates["eager"], strict=True)]
                spread = [(min(v), statistics.median(v), max(v)) for v in (values, ratios)]
                rows.append(
                    {
                        "backbone": name,
                        "resolution": resolution,
                        "way": way,
                        "images_s": values,
                        "ratio": ratios,
                    }
                )
                cells = (
                    " / ".join(f"{x:.{digits}f}" for x in three)
                    for three, digits in zip(spread, (0, 2), strict=True)
                )
                table.add_row(name, str(resolution), way, *cells)
    Console().print(table)
    if options.json:
        options.json.mkdir(parents=True, exist_ok=True)
        (options.json / "prefix.json").write_text(
            json.dumps({"rounds": options.rounds, "rows": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
