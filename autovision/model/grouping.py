"""Which layers of a timm model belong together: timm's own grouping, laid over the order of computation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.models import group_parameters
from torch import fx, nn

from autovision.model.flow import Flow


@dataclass(frozen=True)
class Group:
    """Steps `start` to before `stop` of a flow, which a stage will do."""

    name: str
    start: int
    stop: int


def groups_of(flow: Flow) -> list[Group]:
    """The flow's steps in groups, bottom to top, with a cut between each two.

    A cut is where timm's coarse grouping (that of its layer-wise learning rates) changes and one tensor crosses;
    and before a layer that follows the last block and changes the number of channels.
    """
    cuts = _merged(flow, [0, *_boundaries(flow), len(flow.steps)])
    spans = list(itertools.pairwise(cuts))
    paths = [_paths(flow.steps[start:stop]) for start, stop in spans]
    names = []
    for index, own in enumerate(paths):
        others = [path for each in paths[:index] + paths[index + 1 :] for path in each]
        names.append(_name(flow.model, own, others) if index else "stem")
    return [Group(name, start, stop) for name, (start, stop) in zip(names, spans, strict=True)]


def _boundaries(flow: Flow) -> list[int]:
    of_parameter = _parameter_groups(flow.model)
    places: list[int] = []
    before, of_before, top = -1, -1, ""
    for index, node in enumerate(flow.steps):
        module = flow.module(node)
        if module is None:
            continue
        path = str(node.target)
        found = [of_parameter[f"{path}.{name}"] for name, _ in module.named_parameters()]
        if not found:
            continue
        group, child = min(found), path.split(".")[0]
        if before >= 0 and (group != of_before or (child != top and _changes_channels(flow, node))):
            place = next((at for at in range(index, before, -1) if flow.crossing(at)), None)
            if place is not None:
                places.append(place)
        before, of_before, top = index, group, child
    return places


def _parameter_groups(model: Any) -> dict[str, int]:
    """The group of each parameter, by timm; of models that timm does not group, by container and number in it."""
    if not hasattr(model, "group_matcher"):
        places = {name: _place(name) for name, _ in model.named_parameters()}
        numbers = {place: number for number, place in enumerate(dict.fromkeys(places.values()))}
        return {name: numbers[place] for name, place in places.items()}
    try:
        matcher = model.group_matcher(coarse=True)
    except AssertionError:  # a model that knows one grouping only
        matcher = model.group_matcher(coarse=False)
    return dict(group_parameters(model, matcher, reverse=True))


def _place(path: str) -> str:
    """`stages.2` of `stages.2.blocks.0.conv`, `stem` of `stem.conv`."""
    child, _, rest = path.partition(".")
    number = rest.partition(".")[0]
    return f"{child}.{number}" if number.isdigit() else child


def _changes_channels(flow: Flow, node: fx.Node) -> bool:
    before = [flow.channels(each) for each in node.all_input_nodes]
    return len(before) == 1 and None not in before and before != [flow.channels(node)]


def _merged(flow: Flow, cuts: Sequence[int]) -> list[int]:
    """Without the cuts that would part single layers (a convolution, its norm, …) rather than blocks.

    Single layers stay together until they have reduced the number of positions (VGG, stems), and behind the
    last block they belong to it unless they change the number of channels.
    """
    kept = [cuts[0]]
    for index, at in enumerate(cuts[1:-1], 1):
        open_ = kept[-1]
        below, above = _plain(flow, open_, at), _plain(flow, at, cuts[index + 1])
        if below and not _reduces(flow, open_, at):
            continue
        if above and cuts[index + 1] == cuts[-1] and not _widens(flow, at) and not below:
            continue
        kept.append(at)
    return [*kept, cuts[-1]]


def _plain(flow: Flow, start: int, stop: int) -> bool:
    """Whether all modules there are single layers: at most one of their parts has parameters of its own."""
    modules = [module for node in flow.steps[start:stop] if (module := flow.module(node)) is not None]
    return all(sum(bool(list(m.parameters(recurse=False))) for m in each.modules()) <= 1 for each in modules)


def _reduces(flow: Flow, start: int, stop: int) -> bool:
    """Whether fewer positions come out than go in."""
    below, above = flow.positions(flow.tensor(start)), flow.positions(flow.tensor(stop))
    return below is not None and above is not None and above < below


def _widens(flow: Flow, start: int) -> bool:
    """Whether the features have another number of channels than what crosses at `start`."""
    return flow.channels(flow.tensor(start)) != flow.channels(flow.result)


def _paths(steps: Sequence[fx.Node]) -> list[str]:
    return [str(node.target) for node in steps if node.op == "call_module"]


def _name(model: nn.Module, own: Sequence[str], others: Sequence[str]) -> str:
    """The shortest path that holds the largest of a group's own modules, and none of the others."""
    if not own:
        return "glue"

    def size(path: str) -> int:
        return sum(parameter.numel() for parameter in model.get_submodule(path).parameters())

    parts = max(own, key=size).split(".")
    for depth in range(1, len(parts)):
        prefix = ".".join(parts[:depth])
        if not any(f"{other}.".startswith(f"{prefix}.") for other in others):
            return prefix
    return ".".join(parts)
