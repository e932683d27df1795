"""Which of a file's tensors is which of a backbone's, whatever the program that wrote them called them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import timm.layers
from torch import Tensor, nn

from autovision.errors import InvalidWeights

_COUNTER = "num_batches_tracked"
"""PyTorch before 0.4.1 did not count batches, so a file may or may not hold these"""
_LEAVES = frozenset({"weight", "bias", "running_mean", "running_var"})
"""the last part of names of tensors that may be of one shape, and must not be exchanged"""
_REMEDY = "name the backbone that they are weights of, or give another file"


def match(tensors: Mapping[str, Tensor], model: nn.Module, what: str) -> dict[str, Tensor]:
    """A file's tensors under the names that a timm model has for them.

    Names decide, behind any prefix that they have in common (`module.`, `backbone.`, …); if they are other names,
    the order and the shapes do. Every tensor of the model but its head must be there, and no other: a smaller
    network's names may all be found in a larger one. The head comes along if it has the model's classes. Position
    embeddings of another input size are kept as they are: see `load`.

    Args:
        what: names the weights in errors.

    Raises:
        InvalidWeights: they are of another architecture.
    """
    own = model.state_dict()
    heads = _head_names(own, model)
    needed = [name for name in own if name not in heads and not name.endswith(_COUNTER)]
    prefix = _common_prefix(tensors, needed, what)
    if prefix is None:
        found = _by_order(tensors, [name for name in own if not name.endswith(_COUNTER)], needed, what)
    else:
        found = _by_name(tensors, prefix, own, model, what)
    for name in [name for name in found if name in heads and found[name].shape != own[name].shape]:
        del found[name]
    for name, tensor in found.items():
        _check(name, tensor, own[name], model, what)
    return found


def load(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    """Put what `match` gave onto a model, which may be built for another input size; the head may stay as it is."""
    own = model.state_dict()
    fitting = {
        name: tensor if tensor.shape == own[name].shape else _resized(name, tensor, model)
        for name, tensor in tensors.items()
    }
    model.load_state_dict(fitting, strict=False)


# ------------------------------------------------------------------------------------------------ by name


def _head_names(own: Mapping[str, Tensor], model: nn.Module) -> frozenset[str]:
    heads = _heads(model)
    return frozenset(name for name in own if name.startswith(heads))


def _heads(model: nn.Module) -> tuple[str, ...]:
    """What the names of the classifier's tensors begin with."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    named = config.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))


def _common_prefix(tensors: Mapping[str, Tensor], needed: list[str], what: str) -> str | None:
    """What stands before the names of a whole backbone in a file: mostly nothing; None if they are not there."""
    if all(name in tensors for name in needed):
        return ""
    candidates = dict.fromkeys(
        name.removesuffix(needed[0]) for name in tensors if name.endswith(f".{needed[0]}")
    )
    whole = [prefix for prefix in candidates if all(prefix + name in tensors for name in needed)]
    averaged = [prefix for prefix in whole if "ema" in prefix.lower()]
    if len(whole) > 1 and len(averaged) != 1:
        raise InvalidWeights(
            f"{what} hold the backbone {len(whole)} times, under {', '.join(whole)}; save the one that is meant alone"
        )
    chosen = averaged if len(whole) > 1 else whole
    return chosen[0] if chosen else None


def _by_name(
    tensors: Mapping[str, Tensor], prefix: str, own: Mapping[str, Tensor], model: nn.Module, what: str
) -> dict[str, Tensor]:
    inside = {
        name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
    heads = _heads(model)
    foreign = [
        name
        for name in inside
        if name not in own and not name.startswith(heads) and not name.endswith(_COUNTER)
    ]
    if foreign:
        raise InvalidWeights(
            f"{what} are of another network than backbone {_name(model)!r}: they hold {len(foreign)} tensors more "
            f"({_some(foreign)}); {_REMEDY}"
        )
    return {name: inside[name] for name in own if name in inside}


# ----------------------------------------------------------------------------------------------- by order


def _by_order(
    tensors: Mapping[str, Tensor], names: list[str], needed: list[str], what: str
) -> dict[str, Tensor]:
    """Tensors under other names than the model's, which are in the model's order."""
    given = [name for name in tensors if not name.endswith(_COUNTER)]
    wanted = next((each for each in (names, needed) if len(each) == len(given)), None)
    if wanted is None:
        missing = [name for name in needed if name not in tensors]
        raise InvalidWeights(
            f"{what} hold {len(given)} tensors where the backbone has {len(names)}, and not "
            f"{len(missing)} of them ({_some(missing)}); {_REMEDY}"
        )
    for theirs, ours in zip(given, wanted, strict=True):
        leaves = {name.rpartition(".")[2] for name in (theirs, ours)}
        if len(leaves) > 1 and leaves <= _LEAVES:
            raise InvalidWeights(
                f"{what} have names of their own in another order than the backbone: {theirs!r} stands where it has "
                f"{ours!r}; rename them as timm does, or {_REMEDY}"
            )
    return {ours: tensors[theirs] for theirs, ours in zip(given, wanted, strict=True)}


# ------------------------------------------------------------------------------------------------- shapes


def _check(name: str, tensor: Tensor, own: Tensor, model: nn.Module, what: str) -> None:
    if tensor.is_floating_point() != own.is_floating_point():
        raise InvalidWeights(
            f"{what}: tensor {name!r} is of type {tensor.dtype}, the backbone needs {own.dtype}; "
            "give weights that are not quantised"
        )
    if tensor.shape != own.shape and not _resizable(name, tensor, own, model):
        raise InvalidWeights(
            f"{what}: tensor {name!r} has shape {tuple(tensor.shape)}, backbone {_name(model)!r} needs "
            f"{tuple(own.shape)}; {_REMEDY}"
        )


def _resizable(name: str, tensor: Tensor, own: Tensor, model: nn.Module) -> bool:
    """Whether only the input size makes the difference: one embedding per position, or pair of positions."""
    if tensor.dim() != own.dim() or tensor.shape[-1] != own.shape[-1]:
        return False
    if name == "pos_embed" and tensor.dim() == 3 and hasattr(model, "patch_embed"):
        return math.isqrt(positions := tensor.shape[1] - _prefix_tokens(model)) ** 2 == positions
    return name.endswith("relative_position_bias_table") and math.isqrt(len(tensor)) ** 2 == len(tensor)


def _resized(name: str, tensor: Tensor, model: nn.Module) -> Tensor:
    """Embeddings of positions, interpolated to the model's input size (Dosovitskiy et al. 2021, section 3.2)."""
    m: Any = model
    if name == "pos_embed":
        grid = list(m.patch_embed.grid_size)
        resized = timm.layers.resample_abs_pos_embed(tensor, grid, num_prefix_tokens=_prefix_tokens(model))
    else:
        layer: Any = model.get_submodule(name.rpartition(".")[0])
        shape = layer.relative_position_bias_table.shape
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of torch, on timm's strides
            resized = timm.layers.resize_rel_pos_bias_table(tensor, layer.window_size, shape)
    return resized  # type: ignore[no-any-return]


def _prefix_tokens(model: Any) -> int:
    """Class and register tokens that have a position embedding, too."""
    return 0 if getattr(model, "no_embed_class", False) else int(getattr(model, "num_prefix_tokens", 0))


def _name(model: nn.Module) -> str:
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(model).__name__)


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    return ", ".join(repr(name) for name in listed[:most]) + (", …" if len(listed) > most else "")
