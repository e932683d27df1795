"""Fine-tuning with Ray Tune and timm, as their documentation shows it: what `bench_trials.py` measures against.

A function that builds its loaders and its model, freezes what it does not train, and reports after every epoch; and
a `Tuner` that runs it on one CPU, or one GPU, a trial. Nothing of AutoVision is in it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import timm
import torch
from ray import tune
from timm.data.mixup import Mixup
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

BACKBONE = "tf_efficientnet_lite0"
RESOLUTION = 224
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def loaders(config: dict[str, Any]) -> tuple[DataLoader[Any], DataLoader[Any]]:
    shared = [
        transforms.Resize(round(RESOLUTION / 0.875), transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(RESOLUTION),
    ]
    flips = [transforms.RandomHorizontalFlip()] if config["flip"] else []
    as_tensor = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    train, validation = (
        ImageFolder(Path(config["data"]) / split, transforms.Compose(steps))
        for split, steps in (
            ("train", [*shared, *flips, *as_tensor]),
            ("validation", [*shared, *as_tensor]),
        )
    )
    return DataLoader(train, config["batch_size"], shuffle=True), DataLoader(validation, config["batch_size"])


def make_model(config: dict[str, Any]) -> nn.Module:
    """The pretrained network with a new head; all but the last `unfreeze` stages and the head is frozen."""
    model = timm.create_model(
        BACKBONE,
        pretrained=True,
        pretrained_cfg_overlay={"file": config["weights"]},
        num_classes=2,
        drop_rate=config["dropout"],
    )
    model.requires_grad_(False)
    for module in unfrozen(model, config["unfreeze"]):
        module.requires_grad_(True)
    model.classifier.requires_grad_(True)
    return model  # type: ignore[no-any-return]


def unfrozen(model: nn.Module, count: int) -> list[nn.Module]:
    """The last `count` stages, from the top: the last convolution with its norm, then the last blocks."""
    stages = [nn.ModuleList([model.conv_head, model.bn2]), *reversed(model.blocks)]
    return stages[:count]


def optimizer_of(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    head = list(model.classifier.parameters())
    backbone = [p for name, p in model.named_parameters() if p.requires_grad and "classifier" not in name]
    groups = [{"params": head, "lr": config["lr"]}]
    if backbone:
        groups.append({"params": backbone, "lr": config["lr"] * config["backbone_lr_ratio"]})
    return torch.optim.AdamW(groups, weight_decay=config["weight_decay"])


def train_mode(model: nn.Module) -> None:
    """Dropout on, BatchNorm as it was pretrained."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def run_epoch(
    model: nn.Module,
    loader: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    config: dict[str, Any],
) -> None:
    mixup = Mixup(config["mixup"], label_smoothing=config["label_smoothing"], num_classes=2)
    train_mode(model)
    for images, labels in loader:
        images, labels = images.to(DEVICE, memory_format=config["memory_format"]), labels.to(DEVICE)
        if config["mixup"] and len(images) % 2 == 0:  # timm mixes a batch with itself, turned around
            images, targets = mixup(images, labels)
            loss = F.cross_entropy(model(images), targets)
        else:
            loss = F.cross_entropy(model(images), labels, label_smoothing=config["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[Any], config: dict[str, Any]) -> dict[str, float]:
    model.eval()
    logits, truth = [], []
    for images, labels in loader:
        logits.append(model(images.to(DEVICE, memory_format=config["memory_format"])).cpu())
        truth.append(labels)
    said, labels = torch.cat(logits), torch.cat(truth)
    return {
        "accuracy": (said.argmax(1) == labels).float().mean().item(),
        "neg_log_loss": -F.cross_entropy(said, labels).item(),
    }


def train(params: dict[str, Any]) -> None:
    config = params["trial"]
    began = time.time()
    torch.manual_seed(config["seed"])
    train_loader, validation_loader = loaders(config)
    model = make_model(config).to(DEVICE, memory_format=config["memory_format"])
    optimizer = optimizer_of(model, config)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config["epochs"] * len(train_loader))
    setup_s, epochs_s = time.time() - began, []
    for epoch in range(config["epochs"]):
        started = time.time()
        run_epoch(model, train_loader, optimizer, schedule, config)
        found = evaluate(model, validation_loader, config)
        epochs_s.append(time.time() - started)
        tune.report({**found, "epoch": epoch + 1, "began": began, "setup_s": setup_s, "epochs_s": epochs_s})


def run(
    configs: list[dict[str, Any]], scratch: Path, *, epochs: int, resources: dict[str, float]
) -> list[dict[str, Any]]:
    """Train every configuration, for its first `epochs` epochs; the last report of each, in their order."""
    tuner = tune.Tuner(
        tune.with_resources(train, resources),
        param_space={"trial": tune.grid_search(configs)},
        run_config=tune.RunConfig(storage_path=str(scratch), stop={"epoch": epochs}, verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise RuntimeError(f"{len(results.errors)} of the plain trials failed: {results.errors[0]}")
    reports = {result.config["trial"]["number"]: dict(result.metrics) for result in results}
    return [reports[config["number"]] for config in configs]
