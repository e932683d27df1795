"""Model versions: evaluate, export, quantize, predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autovision.api.data import DataSets
from autovision.errors import InvalidInput
from autovision.model import licenses as license_names
from autovision.model.version import read_version
from autovision.records.datasets import Split
from autovision.records.models import Evaluation, ModelVersion
from autovision.records.runtimes import ExportManifest, Quantized, RuntimeParity
from autovision.registry import catalog as models
from autovision.store import keys, records

# What needs torch or Ray is imported by the methods that use it: looking things up takes no seconds.
if TYPE_CHECKING:
    from autovision.model.predictor import Prediction


class Models(DataSets):
    """Model versions: evaluate, export, quantize, predict."""

    def models(self, *, licenses: Sequence[str] = ()) -> list[ModelVersion]:
        """Every model version, oldest first; with `licenses`, those whose backbone's weights have one of them."""
        allowed = license_names.parse(licenses)
        return [
            version
            for version in models.all_versions(self.store)
            if license_names.permits(allowed, version.lineage.backbone_weights_license)
        ]

    def model(self, name: str) -> ModelVersion:
        """A model version by its id, or a deployment's champion by the deployment's name."""
        return read_version(self.store, models.resolve(self.store, name))

    def evaluate(self, model: str, dataset: str, *, split: str = "test") -> dict[str, Evaluation]:
        """How a model does on a split (its own name), and on each subgroup of it (`test:column=value`).

        Raises:
            NotFound: no such model or data set.
            InvalidInput: no such split, an empty one, or one with a class that the model does not know.
        """
        from autovision.decisions import Measure
        from autovision.registry.evaluate import evaluate_subgroups, predictions

        if split not in tuple(Split):
            raise InvalidInput(f"no split {split!r}; choose one of {', '.join(Split)}")
        version, data = self.model(model), self.dataset(dataset)
        found = predictions(self.store, version.id, data, Split(split))
        return evaluate_subgroups(
            found,
            version.classes,
            version.positive_class,
            dataset=data.id,
            split=Split(split),
            measure=Measure.of(version.metric, version.costs, version.classes),
        )

    def export(self, model: str, folder: str | Path, *, format: str = "onnx") -> ExportManifest:
        """Write a model as a folder that runs without this package; see `registry.export.export`.

        Args:
            format: `onnx`, `openvino` or `pytorch`.
        """
        from autovision.registry.export import export

        return export(self.store, models.resolve(self.store, model), Path(folder), format)

    def quantize(self, model: str) -> Quantized:
        """Make a model's int8 form, and judge whether it may serve on nodes of this kind.

        See `promotion.quantization.quantize`.
        """
        from autovision.promotion.quantization import quantize

        return quantize(self.store, models.resolve(self.store, model))

    def compared_runtimes(self, model: str) -> list[RuntimeParity]:
        """How close the runtimes that were tried for a model came to PyTorch, oldest first."""
        prefix = keys.runtime_parities(models.resolve(self.store, model))
        found = records.read_all(self.store, prefix, RuntimeParity)
        return sorted(found, key=lambda each: each.created_at)

    def quantized(self, model: str) -> list[Quantized]:
        """The verdicts on a model's int8 form, one for each kind of node."""
        return records.read_all(self.store, keys.quantized_all(models.resolve(self.store, model)), Quantized)

    def predict(self, model: str, images: Sequence[bytes]) -> list[Prediction | Exception]:
        """One answer per image; an image that cannot be decoded gives its error in its place."""
        from autovision.model.predictor import Predictor

        return list(Predictor.load(self.store, models.resolve(self.store, model)).predict(images))
