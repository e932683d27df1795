"""The data flow through the feature layers of a timm model, and where it can be cut.

`forward_features` is traced symbolically (torch.fx) down to the layers and blocks that the model's containers hold;
what each step gives is then observed on tensors without data. A place can be a cut where everything above it
needs one single tensor from below.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import get_notrace_functions
from torch import Tensor, fx, nn
from torch.func import functional_call

from autovision.model.layout import Layout, channels, layout_of, positions

_ALONE = threading.Lock()
"""While it traces, torch.fx takes the calls of all modules of the process, and gives back those that it found."""
_BATCHES = (2, 3)
"""what differs between the two is recognised as depending on the batch"""
_WRAPPER = 0.95
"""share of all parameters with which a layer is the model itself, wrapped, and is looked into"""


@dataclass(frozen=True)
class _Shape:
    """Stands for a tensor."""

    size: tuple[int, ...]


@dataclass(frozen=True)
class Seen:
    """What a step gave for each of `_BATCHES`, with shapes in place of tensors."""

    first: Any
    second: Any

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of a tensor that holds one entry per image, for `_BATCHES[0]` images; None for anything else."""
        if not isinstance(self.first, _Shape):
            return None
        (a, *each), (b, *other) = self.first.size or (0,), self.second.size or (0,)
        return self.first.size if (a, b) == _BATCHES and each == other else None

    def describe(self) -> str:
        if isinstance(self.first, _Shape):
            return f"a tensor of shape (B, {', '.join(map(str, self.first.size[1:]))})"
        return (
            f"a {type(self.first).__name__} of {len(self.first)}"
            if _is_several(self.first)
            else repr(self.first)
        )

    @property
    def is_batch_size(self) -> bool:
        return bool((self.first, self.second) == _BATCHES)

    @property
    def is_constant(self) -> bool:
        """Numbers that the batch does not change: the height of a map, say, which the image size fixes."""
        return _is_plain(self.first) and bool(self.first == self.second)


def _is_several(value: Any) -> bool:
    return isinstance(value, (tuple, list))


def _is_plain(value: Any) -> bool:
    if _is_several(value):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


class Flow:
    """The steps from image to features, in the order in which they are computed.

    Attributes:
        model: whose modules and parameters the steps use.
        source: the image.
        steps: all others but the last, which only names the result.
        result: the step that gives the features; where several give parts of them, a step that collects these.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]) -> None:
        """
        Args:
            model: a timm model.
            size: height and width of the images, in pixels.

        Raises:
            Exception: of any type, when the model does what cannot be traced, or refuses images of that size.
        """
        self.model = model
        with evaluating(model):
            with _ALONE:
                graph = _Tracer(model).trace(model)
            self._seen = _observe(model, graph, size)
        nodes = list(graph.nodes)
        self.source, self.steps = nodes[0], nodes[1:-1]
        self.result: fx.Node = nodes[-1]
        if isinstance(given := self.result.args[0], fx.Node):
            self.result = given
        self._position = {node: index for index, node in enumerate(nodes[:-1])}
        self._above_image = _descendants(nodes[:1], nodes)
        parameters = [node for node in nodes if node.op == "get_attr" and self._is_parameter(node)]
        self._of_parameters = _descendants(parameters, nodes)
        self._tied = self._ties()

    def seen(self, node: fx.Node) -> Seen:
        return self._seen[node]

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a step runs, if it runs one."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def tensor(self, at: int) -> fx.Node:
        """What `crossing` gives at a place that is known to be a cut, or at one of the two ends."""
        if at == len(self.steps):
            return self.result
        node = self.crossing(at)
        assert node is not None
        return node

    def layout(self, node: fx.Node) -> Layout | None:
        """Of what a step gives; None if that is not a tensor with positions."""
        shape = self.seen(node).shape
        return layout_of(shape, self.model) if shape is not None else None

    def channels(self, node: fx.Node) -> int | None:
        shape, layout = self.seen(node).shape, self.layout(node)
        return channels(shape, layout) if shape is not None and layout is not None else None

    def positions(self, node: fx.Node) -> int | None:
        shape, layout = self.seen(node).shape, self.layout(node)
        return positions(shape, layout) if shape is not None and layout is not None else None

    def crossing(self, at: int) -> fx.Node | None:
        """The one tensor, one entry per image, that the steps from `steps[at]` on need of what lies before.

        None where they need anything else, or where a parameter is used on both sides.
        """
        if any(first < at <= last for first, last in self._tied):
            return None
        nodes = [self.source, *self.steps]
        needed = {
            node
            for node in nodes[: at + 1]
            if self._is_live(node) and any(self._ends(user) > at for user in node.users)
        }
        if len(needed) != 1:
            return None
        (node,) = needed
        return node if self.layout(node) is not None else None

    def _ends(self, user: fx.Node) -> int:
        return self._position.get(user, len(self.steps) + 1)

    def _is_live(self, node: fx.Node) -> bool:
        """Whether what a step gives must be carried on: constants and what follows from them are made anew."""
        seen = self.seen(node)
        if seen.is_constant or seen.is_batch_size:
            return False
        return node in self._above_image or node in self._of_parameters

    def _is_parameter(self, node: fx.Node) -> bool:
        return isinstance(_attribute(self.model, str(node.target)), nn.Parameter)

    def _ties(self) -> list[tuple[int, int]]:
        """First and last step (as indices of `steps`) of each parameter that more than one step uses."""
        users: dict[int, list[int]] = {}
        for index, node in enumerate(self.steps):
            if (module := self.module(node)) is not None:
                for parameter in module.parameters():
                    users.setdefault(id(parameter), []).append(index)
            elif node.op == "get_attr" and self._is_parameter(node):
                found = users.setdefault(id(_attribute(self.model, str(node.target))), [])
                found += [index, *(self._position[user] - 1 for user in node.users)]
        return [(min(each), max(each)) for each in users.values() if len(each) > 1]

    def part(self, start: int, stop: int) -> nn.Module:
        """One module that does the steps from `start` to before `stop`, both of them cuts; with the model's own
        modules and parameters.
        """
        below, above = self.tensor(start), self.tensor(stop)
        graph = fx.Graph()
        image = graph.placeholder("x")
        made = {below: image}

        def load(node: fx.Node) -> Any:
            if node in made:
                return made[node]
            seen = self.seen(node)
            before = self._position[node] <= start
            if before and seen.is_constant:
                return seen.first
            if before and seen.is_batch_size:
                return graph.call_method("size", (image, 0))
            if isinstance(self.module(node), nn.Identity):
                return load(node.args[0])  # type: ignore[arg-type]
            made[node] = graph.node_copy(node, load)
            return made[node]

        graph.output(load(above))
        return _module_of(self.model, graph)


class _Tracer(fx.Tracer):
    """Looks into containers only: their layers and blocks stay whole, with whatever control flow they have."""

    proxy_buffer_attributes = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(autowrap_functions=tuple(f for f in get_notrace_functions() if callable(f)))
        self.traced_func_name = "forward_features"
        self._most = _WRAPPER * sum(parameter.numel() for parameter in model.parameters())
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)  # another thread computes meanwhile, with a module of its own
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (nn.Sequential, nn.ModuleList)):
            return False
        return sum(parameter.numel() for parameter in m.parameters()) < self._most

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        """The image alone is symbolic; other arguments (masks, …) keep their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]


class _Interpreter(fx.Interpreter):
    """Notes what each step gives."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph=graph)
        self.noted: dict[fx.Node, Any] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Some modules write into the list that they are given, and the graph's own lists are immutable.
        return super().call_module(target, tuple(list(a) if isinstance(a, list) else a for a in args), kwargs)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.noted[n] = _without_data(value)
        return value


def _without_data(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Shape(tuple(value.shape))
    return tuple(map(_without_data, value)) if isinstance(value, (tuple, list)) else value


class _Observed(nn.Module):
    """The model, run step by step."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__()
        self.model, self._graph = model, graph

    def forward(self, x: Tensor) -> dict[fx.Node, Any]:
        interpreter = _Interpreter(self.model, self._graph)
        interpreter.run(x)
        return interpreter.noted


def _observe(model: nn.Module, graph: fx.Graph, size: tuple[int, int]) -> dict[fx.Node, Seen]:
    """Shapes and other values of each step, by tensors that have a shape but no data: no arithmetic is done."""
    observed = _Observed(model, graph)
    tensors = {**dict(observed.named_parameters()), **dict(observed.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    with torch.no_grad():
        first, second = (
            functional_call(observed, shapes, (torch.empty(batch, 3, *size, device="meta"),))
            for batch in _BATCHES
        )
    return {node: Seen(first[node], second[node]) for node in graph.nodes}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and afterwards each module in the mode that it was in.

    Some attention layers keep what they derived from their parameters until they are put into training mode; they are,
    so that nothing stays of what was done in between, or before.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train()
        for module, training in modes.items():
            module.training = training


def _descendants(of: Sequence[fx.Node], nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """The given nodes, and what is computed from any of them."""
    found = set(of)
    for node in nodes:
        if any(each in found for each in node.all_input_nodes):
            found.add(node)
    return found


def _attribute(model: nn.Module, path: str) -> Any:
    value: Any = model
    for name in path.split("."):
        value = getattr(value, name)
    return value


class Glue(fx.GraphModule):
    """Layers with steps between them that are no layers: position embeddings, permutations, …"""

    def extra_repr(self) -> str:
        """What no child tells; a converted network is found again by what `repr` says."""
        return self.code.strip()


def _module_of(model: nn.Module, graph: fx.Graph) -> nn.Module:
    """A graph as a module: the model's own one, or a sequence of such, wherever it is no more than that."""
    chain = _chain(graph)
    if chain is None:
        graph.lint()
        return Glue(model, graph)
    paths = _containers(model, chain)
    modules = [model.get_submodule(path) for path in paths]
    if len(modules) == 1:
        return modules[0]
    common = _common(paths)
    return nn.Sequential(
        OrderedDict(
            (path.removeprefix(common).replace(".", "_"), m) for path, m in zip(paths, modules, strict=True)
        )
    )


def _chain(graph: fx.Graph) -> list[str] | None:
    """The paths of the modules, if each takes what the one before gives and nothing else happens."""
    before, *calls, output = graph.nodes
    for node in calls:
        if node.op != "call_module" or node.args != (before,) or node.kwargs:
            return None
        before = node
    targets = [str(node.target) for node in calls]
    return targets if output.args == (before,) and targets and len(set(targets)) == len(targets) else None


def _containers(model: nn.Module, paths: list[str]) -> list[str]:
    """The same layers with each container for its layers, where they are all there, in order."""
    for start, path in enumerate(paths):
        parent = path.rpartition(".")[0]
        container = model.get_submodule(parent)
        children = [f"{parent}.{name}" for name, _ in container.named_children()]
        stop = start + len(children)
        if parent and isinstance(container, nn.Sequential) and paths[start:stop] == children:
            return _containers(model, [*paths[:start], parent, *paths[stop:]])
    return paths


def _common(paths: Sequence[str]) -> str:
    """The path, with its last dot, of what holds all of them."""
    parts = [path.split(".")[:-1] for path in paths]
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(f"{names[0]}.")
    return "".join(shared)
