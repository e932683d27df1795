"""What a model costs and is worth on each runtime: accuracy, size, memory, latency; and whether int8 is 4x faster.

    python tests/benchmarks/bench_runtimes.py --json bench-results/
    python tests/benchmarks/bench_runtimes.py --json bench-results/ --search-s 300    # a better model, a longer search

A model is searched for on the solar cells (`demo` space, which fine-tunes EfficientNet-Lite0; test is a quarter of the
cells, stratified). Every runtime then loads that same model in a process of its own, one after the other, as a replica
does: accuracy is of all test images, latency of one image and of 16 (medians, decoding not included), memory the most
that the process held, and that beyond one that loaded no model. Files are what lies on disk for the runtime: weights,
and graph. Latencies are measured a second time, all runtimes in turn in one process, since the machine may be busier at
one time than at another; ratios are of those. int8 is made and judged by `autovision model quantize`.

The claim to test: 75 % less memory and 4 times as fast in int8 as in float32.

Measured on 2026-11-26 (EfficientNet-Lite0; two cores of an AMD EPYC with AVX2 alone, which others kept busy: take the
ratios, and those with care): files 9.6 MB, in int8 2.9 (69 % less); beyond a process without a model OpenVINO f32 held
467 MB, int8 244 (48 % less), ONNX Runtime 576, PyTorch 583; int8 was 2.2 times as fast as OpenVINO f32 for one and
1.6 for 16 images. Accuracy on validation changed by 0.0 points [-1.4, +1.4]. It was refused: the mean embedding was
off by 0.155 of the typical distance between two images, where 0.1 is allowed, and in the busy minutes in which the gate
itself timed it, it was not faster. `openvino-bf16` is computed in f32 where the processor has no bf16.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from common import fresh_store, import_solar_cells, options, show, write_json

from autovision.api import AutoVision
from autovision.dataset import catalog, manifest
from autovision.dataset.loader import load_pixels
from autovision.model import converted, runtimes
from autovision.model.bundle import load_network
from autovision.model.compiled import Compiled, OpenVinoModule, default_threads
from autovision.model.formats import ONNX_FILE
from autovision.model.inference import native_precision, openvino_file
from autovision.model.peak import peak_mb
from autovision.model.version import read_version
from autovision.records.datasets import Split
from autovision.records.runtimes import Runtime, Timing
from autovision.registry import parity, quantized
from autovision.registry.evaluate import truth
from autovision.registry.runtimes import OnThisNode
from autovision.store import open_store
from autovision.store.protocol import Store

NOTHING = "nothing"
"""a process that imports what the others do, reads the images, and loads no model"""


def compiled(here: OnThisNode, store: Store, name: Runtime, threads: int) -> Compiled:
    """The model on a runtime; int8 also where its verdict was that it may not serve."""
    if name != "openvino-int8":
        return here.compiled(name)
    verdict = quantized.read(store, here.model.id, threads)
    assert verdict is not None
    path = quantized.file_of(store, here.model, verdict)
    return OpenVinoModule(path, native_precision(), threads)


def one(store: Store, model_id: str, name: str) -> dict[str, Any]:
    """In this process, which does nothing else: accuracy, latency and memory on one runtime."""
    model, threads = read_version(store, model_id), default_threads()
    rows = [
        row
        for row in manifest.read(store, catalog.get(store, model.lineage.dataset))
        if row.split is Split.TEST
    ]
    true = truth(rows, model.classes, multi_label=False)[:, None]
    pixels = load_pixels(store, [row.image for row in rows], model.preprocessing, threads=threads)
    found: dict[str, Any] = {}
    if name != NOTHING:
        runtime: Runtime = name  # type: ignore[assignment]
        here = OnThisNode(store, model, threads)
        network = compiled(here, store, runtime, threads)
        timing = runtimes.timings({runtime: network}, here.size)[runtime]
        right = parity.labels(model, parity.answers(model, network, pixels).probabilities) == true
        found = {"accuracy": float(right.mean()), "images": len(rows), **timing.model_dump()}
    return {**found, "memory_mb": peak_mb()}


def apart(store_uri: str, model_id: str, name: str) -> dict[str, Any]:
    """`one` in a process of its own, which finds every form of the network converted: `quantize` tried them all."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", store_uri, model_id, name],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def size_mb(store: Store, model_id: str, name: Runtime, threads: int) -> float:
    """10⁶ bytes of the files that the runtime reads."""
    model = read_version(store, model_id)
    network = load_network(store, model)
    size = model.preprocessing.height, model.preprocessing.width
    match name:
        case "openvino-int8":
            verdict = quantized.read(store, model_id, threads)
            assert verdict is not None
            return verdict.size_bytes / 1e6
        case "onnx-f32":
            return (converted.folder(network, size, "onnx") / ONNX_FILE).stat().st_size / 1e6
        case "eager-f32":
            return model.size_bytes / 1e6
        case _:
            path = openvino_file(network, size)
            return (path.stat().st_size + path.with_suffix(".bin").stat().st_size) / 1e6


def in_turn(store: Store, model_id: str, names: list[Runtime], threads: int) -> dict[Runtime, Timing]:
    """All runtimes in one process, in turn."""
    here = OnThisNode(store, read_version(store, model_id), threads)
    return runtimes.timings({name: compiled(here, store, name, threads) for name in names}, here.size)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--search-s", type=float, default=90.0, help="budget of the search for the model")
    parser.add_argument("--space", default="demo")
    parser.add_argument("--store", help="with --model: an earlier model instead of a search")
    parser.add_argument("--model")
    parser.add_argument("--one", nargs=3, metavar=("STORE", "MODEL", "RUNTIME"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        uri, model_id, name = chosen.one
        print(json.dumps(one(open_store(uri), model_id, name)))
        return
    if chosen.store:
        compare(chosen, open_store(chosen.store), chosen.model)
        return
    with fresh_store() as store:
        import_solar_cells(store, count=300 if chosen.quick else None)
        budget_s = 30.0 if chosen.quick else chosen.search_s
        state = AutoVision(store.uri).search("solar", space=chosen.space, budget_s=budget_s)
        assert state.model is not None, state
        compare(chosen, store, state.model)


def compare(chosen: argparse.Namespace, store: Store, model_id: str) -> None:
    """The table, and the verdict on int8."""
    threads, model = len(os.sched_getaffinity(0)), read_version(store, model_id)
    verdict = AutoVision(store.uri).quantize(model_id)
    names: list[Runtime] = ["eager-f32", "openvino-f32", "openvino-bf16", "onnx-f32", "openvino-int8"]
    base = apart(store.uri, model_id, NOTHING)["memory_mb"]
    found = {name: apart(store.uri, model_id, name) for name in names}
    together = in_turn(store, model_id, names, threads)
    for name in names:
        found[name] |= {
            "size_mb": size_mb(store, model_id, name, threads),
            "memory_of_model_mb": found[name]["memory_mb"] - base,
            "in_turn": together[name].model_dump(),
            "speedup_over_openvino_f32": runtimes.speedup(together["openvino-f32"], together[name]),
        }
    rows = [
        [
            name,
            f"{of['accuracy']:.4f}",
            f"{of['size_mb']:.2f}",
            f"{of['memory_mb']:.0f}",
            f"{of['memory_of_model_mb']:.0f}",
            f"{of['in_turn']['one_ms']:.1f}",
            f"{of['in_turn']['batch_ms']:.0f}",
            f"{1000 * 16 / of['in_turn']['batch_ms']:.0f}",
            f"{of['speedup_over_openvino_f32']:.2f}",
        ]
        for name, of in found.items()
    ]
    columns = [
        *("runtime", "test accuracy", "files MB", "process MB", "model MB", "1 image ms", "16 images ms"),
        *("images/s", "x OpenVINO f32"),
    ]
    show(
        f"{model.lineage.backbone}, {model.preprocessing.height} px, {threads} threads, "
        f"{found['eager-f32']['images']} test images; evaluated in {model.precision}",
        columns,
        rows,
        f"int8: {'accepted' if verdict.accepted else 'refused'}",
        *(f"  {check.name}: {check.reason}" for check in verdict.checks),
    )
    write_json(
        chosen.json,
        "runtimes",
        {
            "model": model.model_dump(mode="json", include={"id", "precision", "parameters", "lineage"}),
            "base_process_mb": base,
            "runtimes": found,
            "int8": verdict.model_dump(mode="json"),
        },
    )


if __name__ == "__main__":
    main()
