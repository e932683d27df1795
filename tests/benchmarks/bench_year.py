"""A year of one deployment on a virtual clock: the shipped retraining policy beside four plain ones.

    python tests/benchmarks/bench_year.py --json bench-results/ --cache ~/.cache/bench-year --seeds 3

The real controller, monitor, retraining policy and promotion gate turn over a store in memory; see
`autovision.testing.year`. What arrives are embeddings of solar cells, recorded once: pooled features of
EfficientNet-Lite0 at 224 pixels, of mono and poly cells as they are, over-exposed (the glare of summer) and blurred (a
lens that gets dirty), reduced to 64 principal components. A search is a logistic
regression on the labels of its data set version, and takes its whole budget on the virtual clock.

Accuracy is that of the model that serves, by the true labels of cells that no request ever shows, mixed as the traffic
of the day is; the best is a regression on all cells that requests may show, with true labels, weighted as the traffic
is. Of 40 requests a day 15 % are labelled, by people who are wrong in 5 %, after three days in the median; what they
say is stored every third day. `--days` lives the first days of the year alone.

The nightly policies search at two o'clock whenever a label is new. Their challengers meet the same gates. With one of
them the last few that were refused are looked at again on later labels, as those of the shipped policy are; with the
other nobody does so, as it is where a scheduler retrains and a test split decides.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import options, show, write_json
from PIL import Image
from scipy.stats import t as student
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from autovision.records.base import digest_of
from autovision.testing.year import JUDGED_ONCE, KINDS, POLICIES, Images, People, Plan, World, Year, tally
from autovision.testing.year.tally import SAME

EXPOSURE, BLUR = 1.7, 0.012
"""severities, as in `autovision.registry.corruptions`"""
POLY = 900
CLASSES = ("defective", "functional")
COMPONENTS = 64


def compute(few: int | None) -> dict[str, np.ndarray]:
    """kind/embeddings, kind/labels and kind/cells (numbers of the package) of every kind of image."""
    import torch

    from autovision import image as images_
    from autovision.dataset.elpv import load_elpv
    from autovision.model import backbone as backbones
    from autovision.model.inference import native_precision
    from autovision.model.network import Network
    from autovision.model.predictor import Scorer
    from autovision.model.stages import channels_of
    from autovision.registry.corruptions import corrupted
    from autovision.space.config import TrialConfig

    config = TrialConfig(backbone="tf_efficientnet_lite0", resolution=224, taps=3, pooling="avgmax")
    prep, staged = backbones.preprocessing(config), backbones.load(config).staged
    network = Network(staged, config, prep, channels_of(staged, prep.height, prep.width), 2).eval()
    scorer = Scorer.as_evaluated(
        network, (prep.height, prep.width), native_precision(), torch.get_num_threads()
    )
    cells = load_elpv()
    rng = np.random.default_rng(0)
    by_type = {
        name: rng.permutation([i for i, cell in enumerate(cells) if cell.metadata["cell_type"] == name])
        for name in ("mono", "poly")
    }
    mono, poly = by_type["mono"][:few], by_type["poly"][: few or POLY]
    changes: dict[str, tuple[Sequence[int], Callable[[Image.Image, str], Image.Image]]] = {
        "mono": (mono, lambda image, key: image),
        "mono-glare": (mono, partial(corrupted, kind="exposure", severity=EXPOSURE)),
        "mono-blur": (mono, partial(corrupted, kind="blur", severity=BLUR)),
        "poly": (poly, lambda image, key: image),
        "poly-blur": (poly, partial(corrupted, kind="blur", severity=BLUR)),
    }
    found: dict[str, np.ndarray] = {}
    for kind, (chosen, change) in changes.items():
        parts = []
        for begin in range(0, len(chosen), 100):
            pixels = []
            for i in chosen[begin : begin + 100]:
                with Image.open(cells[i].path) as opened:
                    changed = change(opened.convert("RGB"), digest_of(cells[i].source))
                pixels.append(images_.preprocess(changed, prep))
            parts.append(scorer(np.stack(pixels))[1])
        found[f"{kind}/embeddings"] = np.concatenate(parts).astype(np.float32)
        found[f"{kind}/labels"] = np.array([CLASSES.index(cells[i].label) for i in chosen])
        found[f"{kind}/cells"] = np.asarray(chosen)
    return found


def recorded(folder: Path, few: int | None) -> Path:
    """Where the embeddings are; the first time they are computed, which takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"year-{digest_of([EXPOSURE, BLUR, POLY, few])[:16]}.npz"
    if not path.exists():
        scratch = folder / f".{path.name}"
        with scratch.open("wb") as file:
            np.savez(file, **compute(few))
        scratch.replace(path)
        print(f"embeddings are in {path}", flush=True)
    return path


@cache
def kinds(path: Path) -> dict[str, Images]:
    """What was recorded, reduced to its main components; those of one processor are the same for all."""
    with np.load(path) as file:
        found = {
            kind: Images(file[f"{kind}/embeddings"], file[f"{kind}/labels"], file[f"{kind}/cells"])
            for kind in KINDS
        }
    # Of every second cell, whoever is judged by it: components know nothing of labels.
    every = np.concatenate([images.embeddings[::2] for images in found.values()])
    scaler = StandardScaler().fit(every)
    main = PCA(COMPONENTS, random_state=0).fit(scaler.transform(every))
    return {
        kind: Images(main.transform(scaler.transform(images.embeddings)), images.truth, images.cells)
        for kind, images in found.items()
    }


def lived(path: Path, name: str, seed: int, per_day: int, days: int, first: int) -> dict[str, Any]:
    """One year under one policy."""
    began = time.process_time()
    world = World(kinds(path), Plan(days=days), seed, first=first)
    year = Year(world, POLICIES[name], People(seed), per_day, seed, later_looks=name not in JUDGED_ONCE)
    year.live()
    found = tally(year)
    return {
        **asdict(found),
        "mean": found.mean,
        "policy": name,
        "seed": seed,
        "processor_s": time.process_time() - began,
    }


def told(values: Sequence[float | int | None], form: str = "{:g}") -> str:
    """Mean [least, most] over the seeds; a dash where a year has none."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = form.format(float(np.mean(known)))
    if len(known) < len(values):
        mean += f" ({len(known)} of {len(values)})"
    return mean if len(values) == 1 else f"{mean} [{form.format(min(known))}, {form.format(max(known))}]"


def table(years: Sequence[dict[str, Any]], seeds: int, days: int) -> None:
    by = {name: [year for year in years if year["policy"] == name] for name in POLICIES}
    best = float(np.mean([year["best"] for year in years]))

    def each(title: str, value: Callable[[dict[str, Any]], Any], form: str = "{:.0f}") -> list[str]:
        return [title, *(told([value(year) for year in by[name]], form) for name in POLICIES)]

    def slots(year: dict[str, Any], what: str) -> int | None:
        return None if year["slots"] is None else year["slots"][what]

    show(
        f"{days} days, {seeds} seeds: mean [least, most]",
        ["", *POLICIES],
        [
            each("mean accuracy", lambda y: y["mean"], "{:.4f}"),
            each("lowest day", lambda y: min(y["accuracy"]), "{:.3f}"),
            each("days more than 0.03 below the best", lambda y: y["days_below"]),
            each("days from the sudden shift until near the best", lambda y: y["recovery_days"]),
            each("re-searches", lambda y: y["searches"]),
            each("of these, failed", lambda y: y["failed"]),
            each("promoted", lambda y: y["promoted"]),
            each("spent, s", lambda y: y["spent_s"]),
            each("windows", lambda y: y["windows"]),
            each("alarms", lambda y: y["alarms"]),
            each("windows without drift", lambda y: y["still"]),
            each("false alarms", lambda y: y["false_alarms"]),
            each("most searches at once", lambda y: y["most_at_once"]),
            each("searches that overlap", lambda y: y["overlaps"]),
            each("slots", lambda y: slots(y, "all")),
            each("dealt with once", lambda y: slots(y, "once")),
            each("dealt with more than once", lambda y: slots(y, "more")),
            each("overtaken by a later one", lambda y: slots(y, "overtaken")),
            each("of these, outside of outages", lambda y: slots(y, "unexplained")),
            each("words of annotators", lambda y: y["labels"]),
            each("requests lost to the store's outage", lambda y: y["lost"]),
            each("processor seconds", lambda y: y["processor_s"]),
        ],
        f"The best comes to {best:.4f}. A window is without drift where the shares of kinds differ by {SAME} at most.",
    )
    for name in ("nightly", *JUDGED_ONCE):
        beside(by["shipped"], by[name], name)


def beside(shipped: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], name: str) -> None:
    """The shipped policy less another one, by seeds."""
    pairs = [(one, other) for one in shipped for other in others if one["seed"] == other["seed"]]
    gains = [one["mean"] - other["mean"] for one, other in pairs]
    costs = [one["spent_s"] / max(other["spent_s"], 1e-9) for one, other in pairs]
    for (one, _), gain, cost in zip(pairs, gains, costs, strict=True):
        print(f"seed {one['seed']}: shipped - {name}: {gain:+.4f} in accuracy, at {cost:.3f} of its cost")
    if len(gains) > 1:
        half = float(student.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / np.sqrt(len(gains)))
        print(
            f"shipped - {name}: {np.mean(gains):+.4f} ± {half:.4f} (95 %, paired), at {np.mean(costs):.3f} of its cost"
        )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings for the next time")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--per-day", type=int, default=40, help="requests")
    parser.add_argument("--days", type=int, default=365, help="of the year that are lived")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    days, few, first = (10, 120, 40) if chosen.quick else (chosen.days, None, 300)
    with tempfile.TemporaryDirectory() as scratch:
        path = recorded(chosen.cache or Path(scratch), few)
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        asked = [(name, seed) for seed in range(chosen.seeds) for name in chosen.policies]
        years = []
        # A process for each year: the parts of one are told apart by nothing else.
        with ProcessPoolExecutor(chosen.processes, get_context("spawn"), max_tasks_per_child=1) as pool:
            going = [pool.submit(lived, path, *each, chosen.per_day, days, first) for each in asked]
            for each, future in zip(asked, going, strict=True):
                years.append(future.result())
                print(*each, f"{years[-1]['mean']:.4f}", f"{years[-1]['processor_s']:.0f} s", flush=True)
        table(years, chosen.seeds, days)
    write_json(
        chosen.json, "year", {"quick": chosen.quick, "per_day": chosen.per_day, "days": days, "years": years}
    )


if __name__ == "__main__":
    main()
