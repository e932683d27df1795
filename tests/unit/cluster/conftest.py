"""Builds the overlays of `cluster/` as kustomize does, in as much of it as they use; anything else is refused.

Where `kustomize` or a `kubectl` that has it is on PATH, a test compares what it builds with what this builds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[3] / "cluster"
OVERLAYS = ("base", "overlays/small", "overlays/gpu", "overlays/spot", "monitoring")
CLUSTER_WIDE = ("Namespace",)
KNOWN = {
    *("apiVersion", "kind", "namespace", "resources", "patches", "images", "configMapGenerator"),
}

Manifest = dict[str, Any]


def documents(path: Path) -> list[Any]:
    """All documents of a file. What aliases share is copied, or a patch of one place would be one of all."""
    loaded = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return [json.loads(json.dumps(each)) for each in loaded if each is not None]


def build(folder: Path) -> list[Manifest]:
    """All resources of a kustomization, patched. Raises `ValueError` for what kustomize would refuse, too."""
    [customization] = documents(folder / "kustomization.yaml")
    if unknown := set(customization) - KNOWN:
        raise ValueError(f"{folder}: {sorted(unknown)} is nothing that these tests build; teach them")
    found: list[Manifest] = []
    for name in customization["resources"]:
        path = (folder / name).resolve()
        found += build(path) if path.is_dir() else documents(path)
    for generated in customization.get("configMapGenerator", ()):
        found.append(_config_map(folder, generated))
    for patch in customization.get("patches", ()):
        _patch(found, patch["target"], documents(folder / patch["path"])[0])
    for image in customization.get("images", ()):
        used = [c for c in _containers(found) if c["image"].split(":")[0] == image["name"]]
        if not used:
            raise ValueError(f"{folder}: no container has the image {image['name']!r}")
        for container in used:
            container["image"] = f"{image['newName']}:{image['newTag']}"
    for each in found:
        if "namespace" in customization and each["kind"] not in CLUSTER_WIDE:
            each["metadata"]["namespace"] = customization["namespace"]
    return found


def _config_map(folder: Path, generated: Manifest) -> Manifest:
    options = generated["options"]
    assert options["disableNameSuffixHash"], "names with a digest are not built here"
    data = {name: (folder / name).read_text(encoding="utf-8") for name in generated["files"]}
    metadata = {"name": generated["name"], "labels": options["labels"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _patch(found: list[Manifest], target: Manifest, operations: list[Manifest]) -> None:
    """RFC 6902, as far as it is used: `add` and `replace`."""
    meant = [
        each for each in found if (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    if len(meant) != 1:
        raise ValueError(f"{target} names {len(meant)} resources")
    for operation in operations:
        value = copy.deepcopy(operation["value"])
        *parents, last = operation["path"].removeprefix("/").split("/")
        place: Any = meant[0]
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place[name]
        match operation["op"], place:
            case "add", list() if last == "-":
                place.append(value)
            case "replace", list():
                place[int(last)] = value
            case "replace", dict() if last in place:
                place[last] = value
            case _:
                raise ValueError(f"{operation['op']} {operation['path']!r} is not possible")


def _containers(value: Any) -> Iterator[Manifest]:
    """Of whatever kind: everything under `containers`."""
    if isinstance(value, list):
        for each in value:
            yield from _containers(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "containers":
                yield from each
            else:
                yield from _containers(each)


@cache
def _built(name: str) -> list[Manifest]:
    return build(CLUSTER / name)


@pytest.fixture
def built() -> Callable[[str], list[Manifest]]:
    """The resources of an overlay, by its folder's name."""
    return lambda name: copy.deepcopy(_built(name))


@pytest.fixture
def build_folder() -> Callable[[Path], list[Manifest]]:
    return build


@pytest.fixture
def pod_templates() -> Callable[[str], list[tuple[str, Manifest]]]:
    return lambda name: list(_templates(copy.deepcopy(_built(name))))


def _templates(resources: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template with the name of what it belongs to, and the labels that KubeRay adds."""
    for each in resources:
        kind, spec, name = each["kind"], each.get("spec", {}), each["metadata"]["name"]
        if kind == "Deployment":
            yield name, spec["template"]
        if kind in ("RayCluster", "RayService"):
            ray = spec.get("rayClusterConfig", spec)
            for group in (ray["headGroupSpec"], *ray["workerGroupSpecs"]):
                labels = group["template"]["metadata"]["labels"]
                labels["ray.io/node-type"] = "worker" if "groupName" in group else "head"
                yield f"{name}/{group.get('groupName', 'head')}", group["template"]
