"""Data sets and imported weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autovision.api.base import Base
from autovision.dataset import catalog as datasets
from autovision.model import weight_catalog
from autovision.records.datasets import DatasetVersion
from autovision.records.models import ImportedWeights

# What needs torch or Ray is imported by the methods that use it: looking things up takes no seconds.


class DataSets(Base):
    """Data sets and imported weights."""

    def import_dataset(
        self,
        path: str | Path,
        name: str,
        *,
        seed: int = 0,
        positive_class: str | None = None,
        alike_by: str | None = None,
        near_bits: int | None = None,
        follow_links: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> DatasetVersion:
        """Import a folder of class folders, or a CSV or Parquet manifest. See `dataset.importer.import_dataset`.

        Args:
            alike_by: a backbone whose pretrained weights tell near-duplicates, too; see `trial.likeness`.
            near_bits: see `dataset.importer.import_images`.
            follow_links: whether links are followed that lead out of a folder.
        """
        from autovision.dataset import importer

        alike = importer.nothing_else
        if alike_by is not None:
            from autovision.model import backbone as backbones
            from autovision.space.config import TrialConfig
            from autovision.trial.likeness import Likeness

            backbones.check_name(alike_by)
            config = TrialConfig(backbone=alike_by)
            backbones.load(config, self.store)  # weights that cannot be had are told before anything is read
            alike = Likeness(self.store, config, compute_old=True)
        return importer.import_dataset(
            self.store,
            Path(path),
            name,
            seed=seed,
            positive_class=positive_class,
            alike=alike,
            near_bits=near_bits,
            follow_links=follow_links,
            progress=progress,
        )

    def datasets(self) -> list[DatasetVersion]:
        """The latest version of each data set, by name."""
        return [datasets.latest(self.store, name) for name in datasets.list_names(self.store)]

    def dataset(self, name: str) -> DatasetVersion:
        """`name` (its latest version) or `name@3`."""
        return datasets.get(self.store, name)

    def import_weights(
        self,
        path: str | Path,
        name: str,
        *,
        backbone: str,
        license: str | None = None,
        source: str | None = None,
    ) -> ImportedWeights:
        """Import pretrained weights of a timm model; a space then names them as `weights = "store:NAME"`.

        See `model.weight_import.import_weights`.
        """
        from autovision.model import weight_import

        return weight_import.import_weights(
            self.store, Path(path), name, backbone=backbone, license=license, source=source
        )

    def imported_weights(self) -> list[ImportedWeights]:
        """All weights that were imported, by name."""
        return weight_catalog.list_all(self.store)

    def imported_weights_of(self, name: str) -> ImportedWeights:
        return weight_catalog.get(self.store, name)
