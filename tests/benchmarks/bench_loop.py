"""The loop on solar cells: what 50 to 400 labels of a new kind of cell make of the model that is served.

    python tests/benchmarks/bench_loop.py --json bench-results/
    python tests/benchmarks/bench_loop.py --keep runs/loop --labels 50 --seeds 0 --budget-s 45
    python tests/benchmarks/bench_loop.py --keep runs/loop --seeds 0 1 2 3 4 --json bench-results/

For each seed a model is searched for on monocrystalline cells, promoted, and asked about polycrystalline ones, which it
has never seen. Then labels arrive for so many of these, and the controller does what it does in production: it sees the
drift, makes the next version of the data set, searches, and promotes what its gates let pass. Beside it stands a
search from nothing on that same version, cold and without a champion, with the seconds of both searches of the loop
together. Accuracy is that of what is served, on mono cells of the first version's test split and on 650 poly cells that
were never sent nor labelled; `found` is that of the re-search's model, whether it was promoted or not. A model that was
refused for want of evidence alone is looked at again when labels of forty more cells have come, which it does not learn
from: `and then` is what is served after that.

With `--keep` every cell of the table is written down when it is done, and not measured again: the table may be made in
pieces. Intervals are those of Student's t over the seeds. A seed takes its first search, and each number of labels a
re-search and a search from nothing: with 45 s about eleven minutes a seed on two cores.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from common import options, show, write_json
from scipy.stats import t as student

from autovision import runtime
from autovision.controller import Controller
from autovision.dataset import catalog, manifest
from autovision.dataset.importer import SourceImage, import_images
from autovision.demo import plant
from autovision.model.predictor import Prediction, Predictor
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.deployments import Capture, DecisionKind, Deployment, Label, RetrainingPolicy
from autovision.records.searches import SearchRequest, SearchState
from autovision.registry import deployments
from autovision.registry.evaluate import predictions
from autovision.registry.searches import all_searches
from autovision.search import requests
from autovision.search.run import run_search
from autovision.space import load_space
from autovision.store import captures, keys, labels, records
from autovision.store.local import LocalStore
from autovision.store.protocol import Store

NAME, HELD_OUT = "solar", "solar-held-out"
LABELS = (50, 100, 200, 400)
FIRST = "first"
_WINDOW = 100
_MORE = 40
"""labels that come after the verdict on the re-search's model"""


def first(folder: Path, seed: int, space: str, budget_s: float) -> LocalStore:
    """A store with the champion of mono cells in it; what is there already is taken as it is."""
    store = LocalStore(folder)
    cells = plant.share_out(seed)
    version = import_images(store, NAME, cells.development, seed=seed, positive_class="defective")
    test = {row.source for row in manifest.read(store, version) if row.split == Split.TEST}
    mono_test = [cell for cell in cells.development if cell.shown in test]
    held_out = plant.held_out(cells, mono_test)
    import_images(store, HELD_OUT, held_out, seed=seed, positive_class="defective")
    if NAME not in deployments.names(store):
        deployments.create(store, NAME, NAME, load_space(space).to_json(), RetrainingPolicy())
    if deployments.get(store, NAME).model is None:
        request = requests.make_request(
            store, version.id, load_space(space), budget_s=budget_s, seed=seed, deployment=NAME
        )
        requests.submit(store, request)
        run_search(store, request.id)
        list(Controller(store, seed=seed).step_without_search())
        assert deployments.get(store, NAME).model is not None, "the first model was refused"
    return store


def produce(
    store: Store,
    model: str,
    cells: Sequence[SourceImage],
    ago: timedelta = timedelta(days=1),
) -> list[str]:
    """Let the model answer cells and capture them, a second apart; the request ids."""
    files = [cell.path.read_bytes() for cell in cells if cell.path is not None]
    said, sent, at = Predictor.load(store, model).predict(files), [], now() - ago
    for i, (cell, data, answer) in enumerate(zip(cells, files, said, strict=True)):
        assert isinstance(answer, Prediction)
        image, received_at = hashlib.sha256(data).hexdigest(), at + timedelta(seconds=i)
        sent.append(
            Capture(
                request_id=keys.derived_id(received_at, image),
                deployment=NAME,
                model=model,
                received_at=received_at,
                latency_ms=5.0,
                image=image,
                image_bytes=len(data),
                label=answer.label,
                probabilities=answer.probabilities,
                embedding=tuple(answer.embedding.tolist()),
                metadata={"cell_type": cell.metadata["cell_type"]},
            )
        )
        store.put_immutable(captures.image_key(sent[-1]), data)
    captures.append(store, NAME, sent, at=sent[-1].received_at)
    return [capture.request_id for capture in sent]


def label(store: Store, of: Sequence[tuple[str, SourceImage]]) -> None:
    """People say what cells show."""
    for request_id, cell in of:
        word = Label(request_id=request_id, label=cell.label, confidence=cell.confidence, received_at=now())
        labels.add(store, NAME, word)


def turn(
    store: Store, seed: int, count: int, budget_s: float
) -> tuple[SearchRequest, SearchState, list[str]]:
    """The loop, from the first poly cell to the verdict on the re-search's model; what was decided."""
    policy = RetrainingPolicy(
        window=_WINDOW, min_labels=count // 2, volume_labels=None, budget_s=budget_s, subgroup="cell_type"
    )
    deployment = records.update(
        store, keys.deployment(NAME), Deployment, lambda before: before.with_(policy=policy)
    )
    assert deployment.model is not None
    cells = plant.share_out(seed).poly_traffic[: max(count, 2 * _WINDOW)]
    asked = produce(store, deployment.model, cells)
    label(store, random.Random(seed).sample(list(zip(asked, cells, strict=True)), min(count, len(cells))))
    events = [event.text for event in Controller(store, seed=seed).run(once=True)]
    found = [pair for pair in all_searches(store) if pair[0].parent_model is not None]
    assert found, f"the loop did not search again: {events}"
    return (*found[-1], events)


def later(store: Store, seed: int, count: int) -> list[str]:
    """Labels of more cells come, too few for another search; what was decided."""
    sent = max(count, 2 * _WINDOW)
    policy = RetrainingPolicy(
        window=_WINDOW, min_labels=10_000, volume_labels=None, budget_s=1.0, subgroup="cell_type"
    )
    deployment = records.update(
        store, keys.deployment(NAME), Deployment, lambda before: before.with_(policy=policy)
    )
    assert deployment.model is not None
    cells = plant.share_out(seed).poly_traffic[sent : sent + _MORE]
    asked = produce(store, deployment.model, cells, timedelta(hours=1))
    label(store, list(zip(asked, cells, strict=True)))
    return [event.text for event in Controller(store, seed=seed).run(once=True)]


def judged(store: Store, model: str, held_out: DatasetVersion) -> dict[str, float]:
    """Accuracy on mono and on poly."""
    found = predictions(store, model, held_out, Split.TEST)
    right = found.decided.argmax(1) == found.labels
    return {kind: float(right[mask].mean()) for kind, mask in found.groups("cell_type").items()}


def cell_of(
    folder: Path, seed: int, count: int, space: str, budget_s: float, *, nothing: bool
) -> dict[str, Any]:
    """One cell of the table."""
    began = time.time()
    first(folder / FIRST, seed, space, budget_s)
    own = folder / f"labels-{count}"
    shutil.rmtree(own, ignore_errors=True)  # of an attempt that was interrupted
    # Objects are replaced and never changed, so that both stores may share what they have in common.
    shutil.copytree(folder / FIRST, own, copy_function=os.link)
    store = LocalStore(own)
    held_out = catalog.latest(store, HELD_OUT)
    champion = deployments.get(store, NAME).model
    assert champion is not None
    request, state, events = turn(store, seed, count, budget_s)
    served = deployments.get(store, NAME).model
    assert served is not None and state.model is not None
    verdicts = [d for d in deployments.decisions(store, NAME) if d.kind is DecisionKind.PROMOTE]
    finished = requests.finished(store, request.id)
    row: dict[str, Any] = {
        "seed": seed,
        "labels": count,
        "before": judged(store, champion, held_out),
        "after": judged(store, served, held_out),
        "found": judged(store, state.model, held_out),
        "promoted": served != champion,
        "verdict": verdicts[-1].why,
        "candidate": finished.candidate if finished else None,
        "candidates": [c.model_dump(mode="json") for c in finished.candidates] if finished else [],
        "confirmed": [c.model_dump(mode="json") for c in finished.confirmed] if finished else [],
        "notes": finished.notes if finished else (),
        "trials": state.trials,
        "events": events,
    }
    row["events_then"] = later(store, seed, count) if served == champion else []
    then = deployments.get(store, NAME).model
    assert then is not None
    row |= {"then": judged(store, then, held_out), "promoted_then": then != champion}
    if nothing:
        version = catalog.get(store, f"{NAME}@{request.dataset_version}")
        cold = requests.make_request(
            store, version.id, load_space(space), budget_s=2 * budget_s, seed=seed, warm_start=False
        )
        requests.submit(store, cold)
        model = run_search(store, cold.id).model
        assert model is not None
        row["nothing"] = judged(store, model, held_out)
    shutil.rmtree(own)
    return row | {"seconds": time.time() - began}


def interval(values: Sequence[float]) -> str:
    """Mean and its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def report(rows: Sequence[dict[str, Any]], space: str, budget_s: float) -> None:
    table = []
    for count in sorted({row["labels"] for row in rows}):
        of = [row for row in rows if row["labels"] == count]
        for kind in ("poly", "mono"):
            cold = [row["nothing"][kind] for row in of if "nothing" in row]
            table.append(
                [
                    str(count),
                    kind,
                    interval([row["before"][kind] for row in of]),
                    interval([row["after"][kind] for row in of]),
                    interval([row["after"][kind] - row["before"][kind] for row in of]),
                    f"{sum(row['promoted'] for row in of)} of {len(of)}",
                    interval([row["then"][kind] for row in of]),
                    f"{sum(row['promoted_then'] for row in of)} of {len(of)}",
                    interval([row["found"][kind] for row in of]),
                    interval(cold) if cold else "",
                ]
            )
    show(
        f"Before and after the loop: space {space}, {budget_s:g} s a search",
        (
            "labels",
            "cells",
            "before",
            "after",
            "change",
            "promoted",
            "and then",
            "promoted",
            "found",
            "from nothing",
        ),
        table,
        "Accuracy; mean over seeds with Student's 95 % interval. From nothing: as many seconds as both searches.",
    )


def measured(folder: Path, chosen: Any, space: str, budget_s: float) -> list[dict[str, Any]]:
    """All cells of the table that are asked for; those that were measured before are read."""
    rows = []
    for seed in chosen.seeds:
        for count in chosen.labels:
            done = folder / f"seed-{seed}-labels-{count}.json"
            if done.is_file():
                row = json.loads(done.read_text())
                if (row["space"], row["budget_s"]) != (space, budget_s):
                    raise SystemExit(
                        f"{done} is of space {row['space']} and {row['budget_s']:g} s; give another --keep"
                    )
            else:
                row = cell_of(
                    folder / f"seed-{seed}", seed, count, space, budget_s, nothing=not chosen.no_nothing
                )
                row |= {"space": space, "budget_s": budget_s}
                done.with_suffix(".part").write_text(json.dumps(row, indent=1))
                done.with_suffix(".part").replace(done)
            rows.append(row)
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--labels", type=int, nargs="+", default=list(LABELS))
    parser.add_argument("--budget-s", type=float, default=45.0, help="of each search")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--keep", type=Path, help="folder for stores and for what is measured")
    parser.add_argument("--no-nothing", action="store_true", help="without the searches from nothing")
    chosen = parser.parse_args()
    budget_s, space = (20.0, "quick") if chosen.quick else (chosen.budget_s, chosen.space)
    if chosen.quick:
        chosen.labels = chosen.labels[:1]
    with runtime.connected(), tempfile.TemporaryDirectory(prefix="autovision-loop-") as scratch:
        folder = chosen.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows = measured(folder, chosen, space, budget_s)
    report(rows, space, budget_s)
    write_json(
        chosen.json,
        "loop",
        {"quick": chosen.quick, "space": space, "budget_s": budget_s, "rows": rows},
    )


if __name__ == "__main__":
    main()
