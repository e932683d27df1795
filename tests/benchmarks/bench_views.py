"""What stored views give up: accuracy of a few views, computed once, against augmentation drawn afresh in each epoch.

    python tests/benchmarks/bench_views.py --json bench-results/

EfficientNet-Lite0 on all solar cells, the last two stages trained for 8 epochs, three seeds of split and training.
At 160 px, to keep it to some 25 minutes on two cores: accuracies are a few points below those at 224 px, and only
their differences count. `--full` takes 224 px and five seeds, some two hours.

Validation and test together are what is asked, and nothing is chosen by either. Differences are paired, image by image
and seed by seed; their 95 % intervals resample images, since one image is held out under several seeds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from common import fresh_store, import_solar_cells, options, show, write_json
from training import answers, train

from autovision.evaluation import wilson
from autovision.space.config import TrialConfig
from autovision.trial.workbench import Workbench

BASE = TrialConfig(unfreeze=2, epochs=8, batch_size=32, mixup=0.2)
WAYS = {
    "none": BASE,
    "flip, 2 stored": BASE.with_(augmentation="flip"),
    "dihedral, 8 stored": BASE.with_(augmentation="dihedral"),
    **{
        f"{policy}, {f'{views} stored' if views else 'fresh'}": BASE.with_(augmentation=policy, views=views)
        for policy in ("trivialaugment", "randaugment")
        for views in (4, 8, 0)
    },
}
COMPARED = [
    ("flip, 2 stored", "none"),
    ("dihedral, 8 stored", "none"),
    *(
        (f"{policy}, {stored}", f"{policy}, fresh")
        for policy in ("trivialaugment", "randaugment")
        for stored in ("4 stored", "8 stored")
    ),
]
RESAMPLES = 2000


@dataclass
class Asked:
    """What one way of augmentation came to, over all seeds.

    Attributes:
        right: (seed, image) -> whether it was answered rightly.
        seconds: of each seed, features included.
        feature_s: of them those for features, in or before the epochs.
    """

    right: dict[tuple[int, str], bool]
    seconds: list[float]
    feature_s: list[float]


def measure(bench: Workbench, dataset: str, config: TrialConfig, seed: int, asked: Asked) -> None:
    """Train once, and ask about all images that were not trained on."""
    source, began = bench.source(config), time.monotonic()
    features_before = source.seconds
    trial = train(bench, dataset, config, seed)
    asked.seconds.append(time.monotonic() - began)
    asked.feature_s.append(source.seconds - features_before)
    for split in (trial.splits.validation, trial.splits.test):
        hits = answers(trial, split).argmax(1) == split.truth
        asked.right.update({(seed, image): bool(hit) for image, hit in zip(split.images, hits, strict=True)})


def difference(of: Asked, base: Asked) -> tuple[float, float, float]:
    """Difference in accuracy, and its 95 % interval by a bootstrap over images (Efron 1979)."""
    by_image: dict[str, list[int]] = defaultdict(list)
    for key, hit in of.right.items():
        by_image[key[1]].append(int(hit) - int(base.right[key]))
    total = np.array([sum(values) for values in by_image.values()])
    count = np.array([len(values) for values in by_image.values()])
    draws = np.random.default_rng(0).integers(len(total), size=(RESAMPLES, len(total)))
    low, high = np.percentile(total[draws].sum(1) / count[draws].sum(1), (2.5, 97.5))
    return float(total.sum() / count.sum()), float(low), float(high)


def accuracy(asked: Asked) -> dict[str, float]:
    """Over all seeds and images, with Wilson's interval, which takes them for independent."""
    return wilson(sum(asked.right.values()), len(asked.right)).model_dump(mode="json")


def report(title: str, found: dict[str, Asked], seeds: Sequence[int]) -> None:
    lines = []
    for way, asked in found.items():
        value = accuracy(asked)
        cells = [f"{value['value']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"]
        cells += [
            f"{np.median(asked.seconds):.0f}",
            f"{asked.feature_s[0]:.0f}",
            f"{np.median(asked.feature_s):.0f}",
        ]
        lines.append([way, str(len(asked.right)), *cells])
    show(
        title,
        ("augmentation", "n", "accuracy", "s a trial (median)", "features: first seed, s", "median, s"),
        lines,
        "Of stored views the first seed computes nearly all; the seeds after it find most of them in the store.",
    )
    pairs = [
        ("{:+.2f} [{:+.2f}, {:+.2f}]".format(*(100 * x for x in difference(found[a], found[b]))))
        for a, b in COMPARED
    ]
    show(
        f"Paired differences in points, over {len(seeds)} seeds",
        ("augmentation", "against", "points"),
        [[a, b, points] for (a, b), points in zip(COMPARED, pairs, strict=True)],
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--full", action="store_true", help="at 224 px, five seeds")
    parser.add_argument("--seeds", type=int, help="how many; default: three, or five")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    resolution, seeds, count = (224, range(5), None) if chosen.full else (160, range(3), None)
    if chosen.quick:
        resolution, seeds, count = 64, range(2), 160
    seeds = range(chosen.seeds or len(seeds))
    found = {way: Asked({}, [], []) for way in WAYS}
    with fresh_store() as store:
        bench = Workbench(store, chosen.threads)
        for seed in seeds:
            dataset = import_solar_cells(store, f"solar-{seed}", seed=seed, count=count).id
            for way, config in WAYS.items():
                epochs = 1 if chosen.quick else config.epochs
                sized = config.with_(resolution=resolution, epochs=epochs)
                measure(bench, dataset, sized, seed, found[way])
    report(f"Lite0 at {resolution} px, {BASE.epochs} epochs, seeds {list(seeds)}", found, seeds)
    write_json(
        chosen.json,
        "views",
        {
            "base": BASE.with_(resolution=resolution).model_dump(mode="json"),
            "seeds": list(seeds),
            "quick": chosen.quick,
            "ways": {
                way: {
                    "n": len(a.right),
                    "accuracy": accuracy(a),
                    "seconds": a.seconds,
                    "feature_s": a.feature_s,
                }
                for way, a in found.items()
            },
            "differences": [
                {"of": a, "against": b, "points": difference(found[a], found[b])} for a, b in COMPARED
            ],
        },
    )


if __name__ == "__main__":
    main()
