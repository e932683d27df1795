"""The monitor on the solar cells: false alarms, detection, slow drift, and accuracy without labels.

    python tests/benchmarks/bench_drift.py --json bench-results/ --cache ~/.cache/bench-drift

The model: frozen pooled features of EfficientNet-Lite0 at 224 pixels and a linear head, fitted to 400 mono cells; its
temperature is fitted to 100 more. Of the other 574 mono cells, 274 are the reference and 300 are what production may
send, or as it says below; 400 poly cells are drift. Every window goes through `examine`, as a deployment's do,
with a rate of one false alarm in 1,000 windows.

(a) 501 windows of 167 deployments, each with a reference and windows of its own, no cell in two places; and 500 windows
of one deployment in a row, whose cells are drawn from the same 300 again and again. The same with one false alarm in 20
windows, so that the rate can be seen.
(b) Mono windows into which poly cells are mixed. (c) Corruptions at five severities, made anew of 100 cells, in windows
of 50, and which detectors say so. (d) A share of poly cells that grows window by window: with 1, 4 and 16 windows
together, and with single windows alone, which then have all of the rate. (e) The estimates of accuracy against what
labels say.

Most of the time goes into the windows in a row of (a) and (d); `--parts` chooses tables, `--windows` their precision.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import options, show, write_json
from PIL import Image
from scipy import stats

from autovision.monitoring import quality
from autovision.monitoring.detectors import rates
from autovision.monitoring.reference import Reference
from autovision.monitoring.report import Observed, examine
from autovision.monitoring.rows import Rows, digest
from autovision.records.base import digest_of
from autovision.records.deployments import Capture, DriftReport
from autovision.registry.evaluate import Predictions

RATE = 1000.0
OFTEN = 20.0
POLY = 400
SEVERITIES = {
    "noise": (0.02, 0.04, 0.08, 0.12, 0.20),
    "blur": (0.0034, 0.005, 0.008, 0.012, 0.020),
    "exposure": (1.1, 1.2, 1.4, 1.7, 2.2),
    "rotation": (2.0, 4.0, 8.0, 15.0, 30.0),
    "crop": (0.05, 0.10, 0.15, 0.25, 0.40),
}
"""units as in `autovision.registry.corruptions`; of a crop the share of each side that is missing, from one corner"""
TRAIN, CALIBRATE, REFERENCE, CORRUPTED = 400, 100, 274, 100
STEPS = (0.0025, 0.005, 0.01)
"""of the share of poly cells, from window to window"""
CLASSES = ("defective", "functional")
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cells:
    """(N, D) embeddings, (N, figures), (N, 2) probabilities, (N,) labels."""

    embeddings: np.ndarray
    figures: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Any) -> Cells:
        return Cells(self.embeddings[rows], self.figures[rows], self.probabilities[rows], self.labels[rows])

    def __add__(self, other: Cells) -> Cells:
        return Cells(
            *(np.concatenate([a, b]) for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


# ------------------------------------------------------------------------------------------------ embeddings


def cropped(image: Image.Image, key: str, share: float) -> Image.Image:
    """A corner of the image, scaled up to its size."""
    rng = np.random.default_rng(int(key[:16], 16))
    width, height = image.size
    left, top = (share * side * rng.integers(2) for side in (width, height))
    box = (left, top, left + (1 - share) * width, top + (1 - share) * height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


def measured(images: Sequence[Image.Image], scorer: Any, prep: Any) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and figures."""
    import io

    from autovision import image as images_

    def png(image: Image.Image) -> bytes:
        sink = io.BytesIO()
        image.save(sink, "PNG", compress_level=1)
        return sink.getvalue()

    pixels = np.stack([images_.preprocess(image, prep) for image in images])
    return scorer(pixels)[1], quality.measure(map(png, images))


def compute(quick: bool) -> dict[str, np.ndarray]:
    """Everything that needs the network."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from autovision.calibration import fit_temperature
    from autovision.dataset.elpv import load_elpv
    from autovision.model import backbone as backbones
    from autovision.model.inference import native_precision
    from autovision.model.network import Network
    from autovision.model.predictor import Scorer, softmax
    from autovision.model.stages import channels_of
    from autovision.registry.corruptions import corrupted
    from autovision.space.config import TrialConfig

    config = TrialConfig(backbone="tf_efficientnet_lite0", resolution=224, taps=3, pooling="avgmax")
    prep, staged = backbones.preprocessing(config), backbones.load(config).staged
    network = Network(staged, config, prep, channels_of(staged, prep.height, prep.width), 2).eval()
    threads = torch.get_num_threads()
    scorer = Scorer.as_evaluated(network, (prep.height, prep.width), native_precision(), threads)

    cells = load_elpv()
    mono = [cell for cell in cells if cell.metadata["cell_type"] == "mono"]
    poly = [cell for cell in cells if cell.metadata["cell_type"] == "poly"]
    mono = [mono[i] for i in np.random.default_rng(0).permutation(len(mono))]
    poly = [poly[i] for i in np.random.default_rng(0).permutation(len(poly))]
    found: dict[str, np.ndarray] = {}

    def add(name: str, chosen: Sequence[Any], change: Callable[[Image.Image, str], Image.Image]) -> None:
        images = []
        for cell in chosen:
            with Image.open(cell.path) as opened:
                images.append(change(opened.convert("RGB"), digest_of(cell.source)))
        found[f"{name}/embeddings"], found[f"{name}/figures"] = measured(images, scorer, prep)
        found[f"{name}/labels"] = np.array([CLASSES.index(cell.label) for cell in chosen])

    add("mono", mono, lambda image, key: image)
    add("poly", poly[:POLY], lambda image, key: image)
    # Of those that production may send in the first split.
    sent = mono[TRAIN + CALIBRATE + REFERENCE :][:CORRUPTED]
    for kind, levels in SEVERITIES.items():
        for number, level in enumerate(levels):
            change = (
                partial(cropped, share=level)
                if kind == "crop"
                else partial(corrupted, kind=kind, severity=level)
            )
            if not quick or number in (0, 4):
                add(f"{kind}-{number}", sent, lambda image, key, change=change: change(image, key))

    scaler = StandardScaler().fit(found["mono/embeddings"][:TRAIN])
    head = LogisticRegression(C=3e-3, max_iter=2000)
    head.fit(scaler.transform(found["mono/embeddings"][:TRAIN]), found["mono/labels"][:TRAIN])

    def logits(name: str) -> np.ndarray:
        z = head.decision_function(scaler.transform(found[f"{name}/embeddings"]))
        return np.column_stack([np.zeros_like(z), z])

    held = slice(TRAIN, TRAIN + CALIBRATE)
    temperature = fit_temperature(logits("mono")[held].astype(np.float32), found["mono/labels"][held])
    for name in {key.split("/")[0] for key in found}:
        found[f"{name}/probabilities"] = softmax(logits(name) / temperature)
    return found


_folder: list[Path] = []


@cache
def stored() -> dict[str, Cells]:
    """All that was computed, by name."""
    with np.load(_folder[0]) as file:
        names = sorted({key.split("/")[0] for key in file.files})
        parts = ("embeddings", "figures", "probabilities", "labels")
        return {name: Cells(*(file[f"{name}/{part}"] for part in parts)) for name in names}


# --------------------------------------------------------------------------------------------- a deployment


def reference_of(cells: Cells) -> Reference:
    held = Predictions(tuple(map(str, range(len(cells)))), cells.labels, cells.probabilities, {})
    return Reference.of("m", CLASSES, cells.embeddings, held_out=held, figures=cells.figures)


class Watched:
    """A deployment whose windows are examined one after the other."""

    def __init__(self, reference: Reference, rate: float = RATE) -> None:
        self.reference, self.rate = reference, rate
        self.reports: list[DriftReport] = []
        self._rows: dict[str, Rows] = {}

    def see(self, cells: Cells) -> DriftReport:
        at = START + timedelta(hours=len(self.reports))
        captures = [
            Capture.model_construct(
                request_id=f"r{i}",
                deployment="d",
                model="m",
                received_at=at + timedelta(seconds=i),
                latency_ms=1.0,
                image=f"{i:064x}",
                image_bytes=None,
                pixels=True,
                label=CLASSES[int(p.argmax())],
                probabilities=dict(zip(CLASSES, p.tolist(), strict=True)),
                embedding=embedding,
                metadata={},
                shadow=None,
            )
            for i, (p, embedding) in enumerate(zip(cells.probabilities, cells.embeddings, strict=True))
        ]
        report, rows = examine(
            "d",
            self.reference,
            Observed(captures, {f"r{i}": row for i, row in enumerate(cells.figures)}),
            windows_per_false_alarm=self.rate,
            clock=lambda: at + timedelta(minutes=30),
            before=self.reports,
            read=lambda wanted: {which: self._rows[which] for which in wanted},
        )
        self._rows[digest(rows.to_bytes())] = rows
        self.reports.append(report)
        return report


def first_split() -> tuple[Reference, Cells]:
    """The reference, and the cells that production may send."""
    rest = stored()["mono"][TRAIN + CALIBRATE :]
    return reference_of(rest[:REFERENCE]), rest[REFERENCE:]


# --------------------------------------------------------------------------------------------------- (a)


def one_life(seed: int, rate: float) -> list[list[str]]:
    """Who raised an alarm in each window of a deployment of its own."""
    rest = stored()["mono"][TRAIN + CALIBRATE :]
    order = np.random.default_rng([1, seed]).permutation(len(rest))
    watched = Watched(reference_of(rest[order[:REFERENCE]]), rate)
    windows = (order[REFERENCE + 100 * i :][:100] for i in range(3))
    return [[f"{v.name} x{v.windows}" for v in watched.see(rest[rows]).alarming] for rows in windows]


def one_stream(windows: int, rate: float) -> list[list[str]]:
    reference, sent = first_split()
    rng, watched = np.random.default_rng(2), Watched(reference, rate)
    return [
        [f"{v.name} x{v.windows}" for v in watched.see(sent[rng.permutation(len(sent))[:100]]).alarming]
        for _ in range(windows)
    ]


def false_alarms(pool: Executor, quick: bool) -> list[dict[str, Any]]:
    lives, length = (4, 6) if quick else (167, 500)
    asked = {
        (way, rate): (
            [pool.submit(one_life, seed, rate) for seed in range(lives)]
            if way == "deployments of 3 windows"
            else [pool.submit(one_stream, length, rate)]
        )
        for rate in (RATE, OFTEN)
        for way in ("deployments of 3 windows", "one deployment")
    }
    rows = []
    for (way, rate), futures in asked.items():
        said = [each for future in futures for each in future.result()]
        alarms = sum(bool(each) for each in said)
        low = stats.beta.ppf(0.025, alarms, len(said) - alarms + 1) if alarms else 0.0
        high = stats.beta.ppf(0.975, alarms + 1, len(said) - alarms)
        by = Counter(name for each in said for name in each)
        rows.append(
            {
                "way": way,
                "rate": 1 / rate,
                "windows": len(said),
                "alarms": alarms,
                "interval": [low, high],
                "by": by,
            }
        )
    show(
        "(a) False alarms in windows of 100 mono cells",
        ["windows of", "stated rate", "windows", "alarms", "rate", "95 % interval", "by"],
        [
            [
                row["way"],
                f"<= {row['rate']:.4f}",
                str(row["windows"]),
                str(row["alarms"]),
                f"{row['alarms'] / row['windows']:.4f}",
                "[{:.4f}, {:.4f}]".format(*row["interval"]),
                ", ".join(f"{name} {count}" for name, count in row["by"].items()),
            ]
            for row in rows
        ],
    )
    return rows


# ---------------------------------------------------------------------------------------------- (b) and (c)


def detected(windows: Sequence[Cells]) -> dict[str, Any]:
    """Of single windows, each the first of a deployment."""
    reference, _ = first_split()
    reports = [Watched(reference).see(cells) for cells in windows]
    by = Counter(v.name for report in reports for v in report.alarming)
    return {"n": len(reports), "alarms": sum(report.alarm for report in reports), "by": dict(by)}


def mixed(size: int, share: float, windows: int) -> dict[str, Any]:
    _, sent = first_split()
    poly, rng = stored()["poly"], np.random.default_rng([3, size, int(100 * share)])
    strange = round(size * share)
    made = [
        sent[rng.permutation(len(sent))[: size - strange]] + poly[rng.permutation(len(poly))[:strange]]
        for _ in range(windows)
    ]
    return detected(made)


def corrupt(name: str, windows: int) -> dict[str, Any]:
    cells, rng = stored()[name], np.random.default_rng([4, *name.encode()])
    return detected([cells[rng.permutation(len(cells))[:50]] for _ in range(windows)])


def share_of(found: dict[str, Any]) -> str:
    return f"{100 * found['alarms'] / found['n']:.0f} %"


def detection(pool: Executor, few: int) -> dict[str, Any]:
    sizes, shares = (50, 100, 200), (0.10, 0.25, 0.50, 1.0)
    asked = {
        (size, share): pool.submit(mixed, size, share, 4 * few if (size, share) == (100, 1.0) else few)
        for size in sizes
        for share in shares
    }
    known = [name for name in stored() if "-" in name]
    corruptions = {name: pool.submit(corrupt, name, few) for name in known}
    found = {key: future.result() for key, future in asked.items()}
    show(
        "(b) Windows with poly cells among mono cells: share in which an alarm is raised",
        ["cells", *(f"{100 * share:.0f} % poly" for share in shares), "by, at 25 %"],
        [
            [
                str(size),
                *(f"{share_of(found[size, share])} of {found[size, share]['n']}" for share in shares),
                ", ".join(f"{name} {count}" for name, count in found[size, 0.25]["by"].items()),
            ]
            for size in sizes
        ],
    )
    moved = {name: future.result() for name, future in corruptions.items()}
    levels = sorted({int(name[-1]) for name in moved})
    show(
        "(c) Windows of 50 corrupted mono cells: share in which an alarm is raised, and by whom",
        ["corruption", *(f"severity {level + 1}" for level in levels)],
        [
            [
                f"{kind} {', '.join(f'{level:g}' for level in SEVERITIES[kind])}",
                *(
                    f"{share_of(moved[f'{kind}-{level}'])}\n"
                    + "\n".join(f"{who} {count}" for who, count in moved[f"{kind}-{level}"]["by"].items())
                    for level in levels
                ),
            ]
            for kind in SEVERITIES
        ],
        f"n = {few} windows each.",
    )
    return {
        "mixed": [{"cells": size, "share": share, **each} for (size, share), each in found.items()],
        "corruptions": [{"corruption": name, **each} for name, each in moved.items()],
    }


# --------------------------------------------------------------------------------------------------- (d)


def slow(step: float, seed: int, scales: dict[int, float], most: int) -> int | None:
    """The window in which the first alarm is raised; None: none so far."""
    rates.SCALES = scales
    reference, sent = first_split()
    poly, rng, watched = stored()["poly"], np.random.default_rng([5, seed]), Watched(reference)
    for number in range(1, most + 1):
        strange = rng.binomial(100, min(step * number, 1.0))
        mono, other = rng.permutation(len(sent)), rng.permutation(len(poly))
        cells = sent[mono[: 100 - strange]] + poly[other[:strange]]
        if watched.see(cells).alarm:
            return number
    return None


def slow_drift(pool: Executor, quick: bool) -> list[dict[str, Any]]:
    most, runs = (3, 2) if quick else (60, 5)
    before = dict(rates.SCALES)
    ways = {"1, 4, 16 windows": before, "single windows": {1: 1.0}}
    asked = {
        (step, way): [pool.submit(slow, step, seed, scales, most) for seed in range(runs)]
        for step in STEPS
        for way, scales in ways.items()
    }
    rows = []
    for (step, way), futures in asked.items():
        found = [future.result() for future in futures]
        times = [most + 1 if each is None else each for each in found]
        rows.append({"step": step, "way": way, "windows": found, "median": float(np.median(times))})
    show(
        "(d) The share of poly cells grows: windows of 100 until the first alarm",
        ["more poly each window", *ways],
        [
            [
                f"{100 * step:g} points",
                *(
                    f"{row['median']:g} [{min(filled):g}, {max(filled):g}]"
                    for way in ways
                    for row in rows
                    if (row["step"], row["way"]) == (step, way)
                    for filled in [[most + 1 if each is None else each for each in row["windows"]]]
                ),
            ]
            for step in STEPS
        ],
        f"Median [least, most] of {runs} runs; {most + 1}: no alarm in {most} windows.",
    )
    return rows


# --------------------------------------------------------------------------------------------------- (e)


def estimated(name: str, windows: int) -> dict[str, Any]:
    """Errors of the estimates in windows of 100."""
    from autovision.monitoring.estimate import estimate

    reference, sent = first_split()
    cells = sent if name == "mono" else stored()[name]
    rng, rows = np.random.default_rng(6), []
    for _ in range(windows):
        window = cells[rng.permutation(len(cells))[:100]]
        truth = float((window.probabilities.argmax(1) == window.labels).mean())
        found = estimate(reference.rows.answers, window.probabilities.max(1), rng)
        assert found is not None
        rows.append(
            [truth, found.value - truth, found.by_difference - truth, found.low <= truth <= found.high]
        )
    truth, atc, doc, within = np.array(rows, np.float64).mean(0)
    return {"cells": name, "accuracy": truth, "atc": atc, "doc": doc, "within": within}


def estimates(quick: bool) -> list[dict[str, Any]]:
    names = ["mono", "poly", *(f"{kind}-{level}" for kind in SEVERITIES for level in (0, 2, 4))]
    rows = [estimated(name, 3 if quick else 100) for name in names if name == "mono" or name in stored()]
    show(
        "(e) Accuracy without labels: mean error in windows of 100",
        ["cells", "accuracy", "ATC error", "DoC error", "accuracy within the stated 95 %"],
        [
            [
                row["cells"]
                if "-" not in row["cells"]
                else f"{row['cells'][:-2]} {int(row['cells'][-1]) + 1}",
                f"{row['accuracy']:.3f}",
                f"{row['atc']:+.3f}",
                f"{row['doc']:+.3f}",
                f"{100 * row['within']:.0f} %",
            ]
            for row in rows
        ],
    )
    return rows


def _workers(processes: int, path: Path) -> Executor:
    if processes == 1:
        return ThreadPoolExecutor(1)
    context = get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=prepare, initargs=(path,))


def prepare(path: Path) -> None:
    _folder[:] = [path]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings for the next time")
    parser.add_argument("--parts", nargs="+", default=["a", "b", "d", "e"], help="b is also c")
    parser.add_argument("--windows", type=int, default=30, help="of each cell of the tables of detection")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.cache or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        named = digest_of([SEVERITIES, quality.VERSION, quality.FIGURES, chosen.quick])[:16]
        path = folder / f"drift-{named}.npz"
        if not path.exists():
            partial_ = folder / f".{path.name}"
            with partial_.open("wb") as file:
                np.savez(file, **compute(chosen.quick))
            partial_.replace(path)
            print(f"embeddings are in {path}", flush=True)
        prepare(path)
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        figures: dict[str, Any] = {"quick": chosen.quick}
        with _workers(chosen.processes, path) as pool:
            if "e" in chosen.parts:
                figures["estimates"] = estimates(chosen.quick)
            if "b" in chosen.parts:
                figures |= detection(pool, chosen.windows)
            if "a" in chosen.parts:
                figures["false_alarms"] = false_alarms(pool, chosen.quick)
            if "d" in chosen.parts:
                figures["slow"] = slow_drift(pool, chosen.quick)
    write_json(chosen.json, "drift", figures)


if __name__ == "__main__":
    main()
