"""`autovision model`: list, show, evaluate, export and quantize models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli.figures import (
    bootstrap_table,
    classes_table,
    figures_table,
    full_figures,
    plain_figures,
    subgroups,
)
from autovision.cli.options import Json, License, Store
from autovision.cli.output import REFUSED, answering, facts, heading, library, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.models import Evaluation, ModelVersion
    from autovision.records.runtimes import ExportManifest, Quantized, RuntimeParity

app = typer.Typer(no_args_is_help=True, help="List, show, evaluate, export and quantize models.")

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's id, or a deployment's name for its champion.")
]


@app.command("list")
def list_(license_: License = None, store: Store = None, as_json: Json = False) -> None:
    """List the models, oldest first, and which deployment serves which."""
    with answering(as_json) as out:
        av = library(store)
        serving = _champions(av.store)
        found = av.models(licenses=license_ or ())
        out.answer(
            [_brief(version, serving.get(version.id, [])) for version in found],
            _list_table(found, serving) if found else _none_listed(license_ or []),
        )


@app.command()
def show(model: Model, store: Store = None, as_json: Json = False) -> None:
    """Show a model: how good it is, what it needs, and everything that it came from."""
    with answering(as_json) as out:
        av = library(store)
        version = av.model(model)
        deployments = _champions(av.store).get(version.id, [])
        lineage = version.lineage
        out.answer(
            {"model": version.id, **version.model_dump(mode="json"), "deployments": deployments},
            _facts(version, deployments, av.quantized(version.id)),
            figures_table(version.metrics, title="On images that it never saw, with 95 % intervals"),
            *_bootstrap(version.metrics.get("test"), version),
            *_runtimes(av.compared_runtimes(version.id)),
            heading("Lineage"),
            facts(
                {
                    **{name.replace("_", " "): value for name, value in _lineage(version).items()},
                    "parents": ", ".join(lineage.parents) or "none",
                    "soup": ", ".join(lineage.soup) or "none: one trial",
                    "refit": _refit(version),
                    "notes": "\n".join(lineage.notes),
                }
            ),
            heading("Configuration"),
            facts(lineage.config),
            heading("Packages"),
            facts(lineage.packages),
        )


@app.command()
def evaluate(
    model: Model,
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="A data set, or NAME@V.")],
    split: Annotated[
        str, typer.Option("--split", metavar="SPLIT", help="train, validation or test.")
    ] = "test",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model on a split of a data set, and on each subgroup of it."""
    with answering(as_json) as out:
        av = library(store)
        version = av.model(model)
        found = av.evaluate(version.id, dataset, split=split)
        whole = found[split]
        out.answer(
            {
                "model": version.id,
                "dataset": whole.dataset,
                "split": whole.split,
                **full_figures(whole),
                "classes": version.classes,
                "subgroups": {name: full_figures(each) for name, each in subgroups(found, split).items()},
            },
            facts(
                {
                    "model": version.id,
                    "data set": whole.dataset,
                    "split": whole.split,
                    "average precision": whole.average_precision,
                    "log loss": whole.log_loss,
                    "calibration error": whole.ece,
                }
            ),
            figures_table(found, title="With 95 % intervals"),
            *_bootstrap(whole, version),
            classes_table(whole, version.classes),
        )


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="A folder that is new, or empty.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="onnx, openvino or pytorch.")
    ] = "onnx",
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Write a model as a folder that runs anywhere without AutoVision.

    It holds the network, everything else that the model is, checksums, and load.py, which answers images. Before
    it is there, its answers are compared with PyTorch's on real images; if they disagree nothing is written.
    """
    with answering(as_json) as out:
        manifest = library(store).export(model, to, format=format_)
        out.answer({"folder": str(to), **manifest.model_dump(mode="json")}, _export_facts(manifest, to))


@app.command()
def quantize(model: Model, store: Store = None, as_json: Json = False) -> None:
    """Make a model's int8 form, and judge whether it may serve on nodes of this kind.

    It may where accuracy on the validation split is shown to stay within two points, its answers stay close to
    PyTorch's, and it is faster and smaller than what serves otherwise. The verdict is stored either way.

    Exits with 8 if it may not serve.
    """
    with answering(as_json) as out:
        verdict = library(store).quantize(model)
        out.answer(
            {**verdict.model_dump(mode="json"), "accepted": verdict.accepted},
            _quantized_facts(verdict),
            table(
                ["condition", "met", "why"],
                [[check.name, check.passed, check.reason] for check in verdict.checks],
            ),
        )
        if not verdict.accepted:
            out.note("refused: `serve` goes on without it")
            raise typer.Exit(REFUSED)


# ---------------------------------------------------------------------------------------------- helpers


def _champions(store: Any) -> dict[str, list[str]]:
    """model -> the deployments that serve it"""
    from autovision.registry import deployments

    serving: dict[str, list[str]] = {}
    for name in deployments.names(store):
        champion = deployments.get(store, name).model
        if champion is not None:
            serving.setdefault(champion, []).append(name)
    return serving


def _none_listed(licenses: list[str]) -> str:
    if licenses:
        return f"There is no model from weights under {', '.join(licenses)}; leave --license out to list all."
    return "There is no model yet; `autovision search submit DATASET --wait` makes one."


def _brief(version: ModelVersion, deployments: list[str]) -> dict[str, Any]:
    return {
        "model": version.id,
        "dataset": version.lineage.dataset,
        "backbone": version.lineage.backbone,
        "license": version.lineage.backbone_weights_license,
        "classes": version.classes,
        "multi_label": version.multi_label,
        "metrics": plain_figures(version.metrics["test"]) if "test" in version.metrics else {},
        "size_bytes": version.size_bytes,
        "search": version.lineage.search,
        "deployments": deployments,
        "created_at": version.created_at,
    }


def _list_table(found: list[ModelVersion], serving: dict[str, list[str]]) -> Table:
    rows = []
    for version in found:
        test = version.metrics.get("test")
        rows.append(
            [
                version.id,
                version.lineage.dataset,
                version.lineage.backbone.removeprefix("tf_"),
                test and f"{test.accuracy.value:.3f}",
                test and f"{test.f1.value:.3f}",
                f"{version.size_bytes / 1e6:.1f}",
                ", ".join(serving.get(version.id, [])),
            ]
        )
    return table(["!model", "data set", "backbone", ">accuracy", ">F1", ">MB", "champion of"], rows)


def _facts(version: ModelVersion, deployments: list[str], int8: list[Quantized]) -> Table:
    from autovision.decisions import told

    prep = version.preprocessing
    return facts(
        {
            "model": version.id,
            "classes": ", ".join(version.classes),
            "labels": "any number an image" if version.multi_label else None,
            "positive class": version.positive_class,
            "champion of": ", ".join(deployments) or "no deployment",
            "input": f"{prep.height} x {prep.width} pixels, crop {prep.crop_pct:g}, {prep.interpolation}",
            "size": f"{version.size_bytes / 1e6:.2f} MB, {version.parameters:,} parameters",
            "precision": version.precision,
            "int8": _int8(int8),
            "temperature": version.temperature,
            "searched by": version.metric,
            "answers": told(version.decision, version.classes, several=version.multi_label),
            "because": version.decision.why,
            "made (UTC)": version.created_at,
        }
    )


def _export_facts(manifest: ExportManifest, folder: Path) -> Table:
    found = manifest.parity
    return facts(
        {
            "folder": folder,
            "model": manifest.model,
            "format": manifest.format,
            "files": ", ".join(manifest.files),
            "needs": ", ".join(f"{name} {version}" for name, version in manifest.packages.items()),
            "like PyTorch": found and f"{found} of {found.dataset}, {found.split}",
            "try it": f"python {folder / 'load.py'} IMAGE",
        }
    )


def _quantized_facts(verdict: Quantized) -> Table:
    return facts(
        {
            "model": verdict.model,
            "node": verdict.node,
            "verdict": "int8 may serve" if verdict.accepted else "int8 may not serve",
            "compared with": verdict.compared_with,
            "accuracy": f"{verdict.accuracy_before:.4f} before, {verdict.accuracy:.4f} in int8, on {verdict.images:,} "
            f"images of {verdict.dataset}, {verdict.split}",
            "one image": f"{verdict.timing_before.one_ms:.1f} ms before, {verdict.timing.one_ms:.1f} in int8",
            "a batch": f"{verdict.timing_before.batch_ms:.1f} ms before, {verdict.timing.batch_ms:.1f} in int8",
            "calibrated on": f"{verdict.calibrated_on:,} images of train",
        }
    )


def _runtimes(found: list[RuntimeParity]) -> list[Any]:
    """What servers compared with PyTorch; nothing before any server did."""
    if not found:
        return []
    lines = {f"{each.runtime}, {each.node}": f"{each.parity}" for each in found}
    return [heading("Runtimes, compared with PyTorch on real images"), facts(lines)]


def _int8(verdicts: list[Quantized]) -> str | None:
    """A line for each kind of node; nothing where none was made."""
    lines = [
        f"{'may serve' if each.accepted else 'may not serve'} on {each.node}: {each.speedup:.2f} times as fast, "
        f"{1 - each.size_bytes / each.size_bytes_before:.0%} smaller, accuracy "
        f"{100 * each.accuracy_change.value:+.1f} points"
        for each in verdicts
    ]
    return "\n".join(lines) or None


def _bootstrap(evaluation: Evaluation | None, version: ModelVersion) -> list[Table]:
    """Nothing for an evaluation of before there were any."""
    if evaluation is None or not evaluation.bootstrap:
        return []
    return [bootstrap_table(evaluation, version.metric)]


def _refit(version: ModelVersion) -> str:
    refit = version.lineage.refit
    if refit is None:
        return "none: trained on train alone"
    epochs = ", ".join(f"{number} epochs of {trial}" for trial, number in refit.epochs.items())
    return f"{epochs}, on {refit.images:,} images of train and validation"


def _lineage(version: ModelVersion) -> dict[str, Any]:
    """Everything but what is shown apart."""
    return version.lineage.model_dump(
        mode="json", exclude={"config", "packages", "parents", "soup", "refit", "notes"}
    )
