"""The champion as a teacher: its weights as a trial has them, and what it says of the images that it knew.

Its weights are those of before it was trained again on validation images, wherever a trial starts from them or learns
from their answers: the trial is judged by these images.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from autovision.errors import InvalidInput
from autovision.model import backbone as backbones
from autovision.model import bundle
from autovision.model.network import Suffix
from autovision.model.version import read_file, read_version
from autovision.records.models import ModelVersion
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.store.protocol import AlreadyExists, KeyNotFound, Store
from autovision.trial.data import Labelled, load_inputs
from autovision.trial.loss import probabilities
from autovision.trial.train import predict

if TYPE_CHECKING:
    from autovision.trial.splits import DataSplits
    from autovision.trial.workbench import Workbench

_ROWS = ("head.out.weight", "head.out.bias")
"""tensors that have a row for each class"""


def suffix_of(bench: Workbench, config: TrialConfig, classes: int) -> Suffix:
    """What a configuration trains, above its pretrained backbone; in evaluation mode."""
    source, channels = bench.source(config), bench.channels(config)
    keep = backbones.kept_stages(config, len(channels))
    staged = copy.deepcopy(source.loaded.staged)
    staged.truncate(keep)
    return Suffix(staged, config, channels[:keep], classes).eval()


def served_tensors(store: Store, version: ModelVersion, suffix: Suffix) -> dict[str, Tensor]:
    """What `trained_state` of the suffix of its configuration would be in the network that a model serves."""
    network = load_tensors(read_file(store, version, bundle.WEIGHTS_FILE))
    found = {}
    for name in suffix.trained_state():
        place = name
        if name.startswith("upper.stages."):
            index, _, rest = name.removeprefix("upper.stages.").partition(".")
            place = f"backbone.stages.{suffix.cut + int(index)}.{rest}"
        found[name] = network[place]
    return found


def learnt_tensors(store: Store, version: ModelVersion, suffix: Suffix) -> dict[str, Tensor]:
    """The same as it was before it was trained again on validation images too."""
    if version.lineage.refit is None:
        return served_tensors(store, version, suffix)
    return dict(load_tensors(store.get(version.lineage.refit.before_key).data))


def learnt_head(store: Store, version: ModelVersion) -> dict[str, Tensor]:
    """The part of them that is the head's, which is named alike in all files."""
    refit = version.lineage.refit
    data = (
        read_file(store, version, bundle.WEIGHTS_FILE) if refit is None else store.get(refit.before_key).data
    )
    return {name: tensor for name, tensor in load_tensors(data).items() if name.startswith("head.")}


def by_class(
    tensors: dict[str, Tensor], own: dict[str, Tensor], theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, Tensor]:
    """A model's tensors with its head's rows at the places of its classes; those of new classes are as in `own`."""
    if tuple(theirs) == tuple(ours):
        return tensors
    known = [name for name in theirs if name in ours]
    to, of = [list(ours).index(name) for name in known], [list(theirs).index(name) for name in known]
    mapped = dict(tensors)
    for name in _ROWS:
        if name in tensors:
            mapped[name] = own[name].detach().cpu().clone()
            mapped[name][to] = tensors[name][of]
    return mapped


def logits_of(
    bench: Workbench, version: ModelVersion, split: Labelled, *, deadline: float = math.inf
) -> np.ndarray:
    """(N, C) float32, in the order of the model's classes, of what it was before it saw validation images.

    From stored features, where they are there. Raises `OutOfTime` if the deadline (seconds since the epoch) comes.
    """
    config = TrialConfig.model_validate(version.lineage.config)
    suffix = suffix_of(bench, config, len(version.classes))
    suffix.load_trained(learnt_tensors(bench.store, version, suffix))
    source, channels = bench.source(config), bench.channels(config)
    inputs = load_inputs(source, split, config, channels, training=False, deadline=deadline)
    return predict(suffix.cuda() if torch.cuda.is_available() else suffix, inputs)


def taught(
    bench: Workbench,
    splits: DataSplits,
    split: Labelled,
    configs: Sequence[TrialConfig],
    *,
    deadline: float = math.inf,
) -> Labelled:
    """A split with what the champion says of it, where any configuration distils; otherwise as it is.

    The champion is asked once, and its answer kept: all trials learn from the same one.

    Raises:
        InvalidInput: there is no champion.
        OutOfTime: it came to the deadline, in seconds since the epoch.
    """
    if split.taught is not None or not any(config.distill for config in configs):
        return split
    if splits.champion is None:
        shares = ", ".join(sorted({f"{config.distill:g}" for config in configs if config.distill}))
        raise InvalidInput(
            f"distill={shares}: there is no champion to learn from; leave it at 0, or search with a parent model"
        )
    version = read_version(bench.store, splits.champion)
    if split.new is None or bool(split.new.all()):
        return replace(split, taught=split.targets)
    logits = torch.from_numpy(_remembered(bench, version, split, deadline))
    said = probabilities(logits / version.temperature, multi_label=split.multi_label).float()
    ours = splits.version.classes
    columns = torch.zeros_like(split.targets)
    for at, name in enumerate(version.classes):
        if name in ours:
            columns[:, ours.index(name)] = said[:, at]
    return replace(split, taught=torch.where(split.new[:, None], split.targets, columns))


def _remembered(bench: Workbench, version: ModelVersion, split: Labelled, deadline: float) -> np.ndarray:
    """The champion's logits (N, C), from the store if they are there."""
    key = keys.taught(version.id, hashlib.sha256("\n".join(split.images).encode()).hexdigest())
    with suppress(KeyNotFound):
        return np.asarray(load_tensors(bench.store.get(key).data)["logits"].numpy())
    found = logits_of(bench, version, split, deadline=deadline)
    try:
        bench.store.put_new(key, bundle.tensors_file({"logits": torch.from_numpy(found)}))
    except AlreadyExists:  # another worker was first, and all are to learn from the same answers
        return np.asarray(load_tensors(bench.store.get(key).data)["logits"].numpy())
    return found
