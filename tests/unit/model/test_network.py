"""The network as a whole, and cut into a frozen prefix and a suffix."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from torch import Tensor

from autovision.errors import CorruptObject, InvalidInput
from autovision.features.extract import FrozenPrefix
from autovision.image import apply_view, view_count
from autovision.model import backbone as backbones
from autovision.model.backbone import LoadedBackbone
from autovision.model.bundle import build_network, weights_of
from autovision.model.heads import Head, pool, tap_width, tapped_stages
from autovision.model.network import (
    Network,
    Normalize,
    Suffix,
    cut_of,
    select_taps,
    taps_below,
)
from autovision.model.stages import channels_of
from autovision.records.models import Preprocessing
from autovision.space.config import TrialConfig

BACKBONES = ("test_resnet", "test_efficientnet", "test_vit")
POOLINGS = ("avg", "max", "avgmax", "gem")


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
    )


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]]:
    found = {}
    for name in BACKBONES:
        wanted = config(backbone=name)
        backbone, prep = backbones.load(wanted), backbones.preprocessing(wanted)
        found[name] = (backbone, prep, channels_of(backbone.staged, prep.height, prep.width))
    return found


def pixels_of(prep: Preprocessing, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, prep.height, prep.width, 3), generator=generator, dtype=torch.uint8)


ARCHITECTURES = {
    "unfreeze": st.integers(0, 2),
    "adapters": st.integers(0, 2),
    "adapter_width": st.integers(2, 9),
    "taps": st.integers(1, 4),
    "drop_stages": st.integers(0, 1),
    "pooling": st.sampled_from([*POOLINGS, "attention"]),
    "head": st.sampled_from(["linear", "mlp", "cosine", "attention"]),
    "head_width": st.sampled_from([8, 30, 128]),
}
"""every field that says what a network is, besides backbone and resolution"""


@pytest.mark.parametrize("name", BACKBONES)
@settings(max_examples=12, deadline=None)
@given(drawn=st.fixed_dictionaries(ARCHITECTURES), seed=st.integers(0, 1000))
def test_prefix_and_suffix_are_the_network_and_the_record_rebuilds_it(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]],
    name: str,
    drawn: dict[str, object],
    seed: int,
) -> None:
    """Whatever was trained above the cut, wherever the taps lie: stored features give the served logits."""
    backbone, prep, channels = loaded[name]
    wanted = config(backbone=name, **drawn)
    kept = len(channels) - wanted.drop_stages
    staged = copy.deepcopy(backbone.staged)
    staged.truncate(kept)
    suffix = Suffix(staged, wanted, channels[:kept], 3).eval()
    before = {key: tensor.clone() for key, tensor in suffix.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in suffix.trained_state().values():  # as if trained
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
        width = tap_width(wanted, channels[:kept])
        suffix.head.standardize(torch.randn(width, generator=generator), torch.full((width,), 1.5))
    trained = suffix.trained_state()
    changed = {key for key, tensor in suffix.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == set(trained), "what training may change is what is kept"
    network = Network(staged, wanted, prep, channels[:kept], 3).take(suffix).eval()

    pixels = pixels_of(prep)
    with torch.inference_mode():
        frozen = FrozenPrefix(backbone.staged, prep, None, range(len(backbone.staged))).eval()(pixels)
        under = taps_below(wanted, kept) if wanted.needs_maps else tapped_stages(wanted, kept)
        below = select_taps(frozen, wanted, channels, under) if under else None
        prefix = FrozenPrefix(backbone.staged, prep, suffix.cut, []).eval()
        activation = prefix(pixels) if wanted.needs_maps else None
        logits, embedding = network(pixels)
        torch.testing.assert_close(suffix(activation, below), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(suffix.features(activation, below), embedding, rtol=1e-4, atol=1e-4)
        assert embedding.shape == (3, width)

        # The record alone, and the tensors, are the network again: exactly.
        recorded = TrialConfig.model_validate_json(wanted.to_json())
        rebuilt = build_network(recorded, 3)
        rebuilt.load_state_dict(load_tensors(weights_of(network)))
        assert torch.equal(rebuilt(pixels)[0], logits)
        # So are the frozen backbone and what was trained.
        again = copy.deepcopy(backbone.staged)
        again.truncate(kept)
        other = Suffix(again, recorded, channels[:kept], 3).eval()
        other.load_trained(trained)
        assert torch.equal(other(activation, below), suffix(activation, below))


def test_tensors_of_another_configuration_are_refused(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]],
) -> None:
    backbone, _, channels = loaded["test_resnet"]
    one, other = (
        Suffix(copy.deepcopy(backbone.staged), config(**changes), channels, 3)
        for changes in ({"taps": 1}, {"taps": 2})
    )
    with pytest.raises(CorruptObject, match="shapes differ"):
        one.load_trained(other.trained_state())
    mlp = Suffix(copy.deepcopy(backbone.staged), config(head="mlp"), channels, 3)
    with pytest.raises(CorruptObject, match=r"head\.hidden\.bias"):
        mlp.load_trained(one.trained_state())


def test_adapters_and_attention_begin_as_nothing(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]],
) -> None:
    """So that a head that was probed on pooled features fits the network that is trained from there."""
    backbone, prep, channels = loaded["test_resnet"]
    pixels, outputs = pixels_of(prep), []
    for changes in ({}, {"adapters": 2, "adapter_width": 4}, {"pooling": "attention"}):
        network = Network(backbone.staged, config(taps=3, **changes), prep, channels, 3).eval()
        with torch.inference_mode():
            outputs.append(network(pixels)[1])
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0], rtol=1e-4, atol=1e-5)


def test_no_more_can_be_adapted_than_is_frozen() -> None:
    assert cut_of(config(unfreeze=1, adapters=2), 5) == 3
    with pytest.raises(InvalidInput, match="adapters=4 is more than the 3 stages that stay frozen"):
        cut_of(config(unfreeze=2, adapters=4), 5)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_selected_columns_are_what_pooling_the_activations_gives(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]], name: str, pooling: str
) -> None:
    backbone, prep, channels = loaded[name]
    wanted, stages = config(backbone=name, pooling=pooling), [0, 2, len(channels) - 1]
    pixels = pixels_of(prep)
    with torch.inference_mode():
        rows = FrozenPrefix(backbone.staged, prep, None, range(len(backbone.staged)))(pixels)
        assert rows.shape == (3, 3 * sum(channels))
        direct, x = [], Normalize(prep)(pixels)
        for index, stage in enumerate(backbone.staged.stages):
            x = stage(x)
            if index in stages:
                direct.append(pool(backbone.staged.spatial(x, index), wanted.pooling))
        torch.testing.assert_close(select_taps(rows, wanted, channels, stages), torch.cat(direct, 1))


def test_normalizing_is_that_of_the_backbone() -> None:
    prep = Preprocessing(
        height=4,
        width=5,
        crop_pct=1.0,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    pixels = pixels_of(prep)
    expected = (pixels.float() / 255 - torch.tensor(prep.mean)) / torch.tensor(prep.std)
    torch.testing.assert_close(Normalize(prep)(pixels), expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_the_poolings_are_what_their_names_say() -> None:
    x = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 3.0, 3.0], [-1.0, -2.0, -3.0]]])
    torch.testing.assert_close(pool(x, "avg"), torch.tensor([[1.0, 3.0, -2.0]]))
    torch.testing.assert_close(pool(x, "max"), torch.tensor([[2.0, 3.0, -1.0]]))
    torch.testing.assert_close(pool(x, "avgmax"), torch.cat([pool(x, "avg"), pool(x, "max")], 1))
    torch.testing.assert_close(
        pool(x, "gem"), torch.tensor([[3.0 ** (1 / 3), 3.0, 0.0]]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("head", ["linear", "mlp", "cosine"])
def test_a_head_sees_standardized_features(head: str) -> None:
    features = 5 + 100 * torch.randn(50, 6)
    features[:, 2] = 7.0  # says nothing, and must not divide by zero
    made = Head(config(head=head), 6, 4).eval()
    made.standardize(features.mean(0), features.std(0))
    seen = (features - made.mean) / made.std
    assert torch.isfinite(made(features)).all()
    torch.testing.assert_close(seen[:, :2].std(0), torch.ones(2))
    assert seen[:, 2].abs().max() < 1e-4


def test_a_cosine_head_is_bounded_by_its_scale() -> None:
    made = Head(config(head="cosine"), 6, 4).eval()
    assert made(1e4 * torch.randn(50, 6)).abs().max() <= 10.001


def test_the_last_stages_feed_the_head() -> None:
    assert tapped_stages(config(taps=2), 5) == [3, 4]
    assert tapped_stages(config(taps=8), 3) == [0, 1, 2]
    assert tap_width(config(taps=2, pooling="avgmax"), [1, 2, 4, 8]) == 2 * (4 + 8)
    assert tap_width(config(taps=3, pooling="gem"), [1, 2, 4, 8]) == 2 + 4 + 8


def test_no_more_can_be_unfrozen_than_there_is() -> None:
    assert cut_of(config(unfreeze=3), 3) == 0
    with pytest.raises(InvalidInput, match="unfreeze=4 is more than the 3 stages"):
        cut_of(config(unfreeze=4), 3)


def test_the_position_embedding_of_a_vit_is_trained_and_saved_with_its_stem(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]],
) -> None:
    backbone, prep, channels = loaded["test_vit"]
    everything = config(backbone="test_vit", unfreeze=len(channels))
    suffix = Suffix(copy.deepcopy(backbone.staged), everything, channels, 2)
    assert "upper.stages.0.pos_embed" in suffix.state_dict()
    activation = FrozenPrefix(backbone.staged, prep, 0, [])(pixels_of(prep))
    torch.nn.init.normal_(suffix.head.out.weight)
    suffix(activation, None).sum().backward()
    gradients = {name for name, p in suffix.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"upper.stages.0.pos_embed", "head.out.weight"} <= gradients


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("averaged", ["none", "flip", "dihedral"])
def test_test_time_augmentation_is_the_mean_over_the_views(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]], name: str, averaged: str
) -> None:
    backbone, prep, channels = loaded[name]

    def network(augmentation: str) -> Network:
        wanted = config(backbone=name, test_time_augmentation=augmentation)
        made = Network(backbone.staged, wanted, prep, channels, 3).eval()
        torch.nn.init.normal_(made.head.out.weight, generator=torch.Generator().manual_seed(0))
        return made

    pixels = pixels_of(prep)
    with torch.inference_mode():
        each = [
            network("none")(
                torch.from_numpy(np.ascontiguousarray(apply_view(pixels.numpy(), averaged, view)))
            )
            for view in range(view_count(averaged))
        ]
        assert len({tuple(logits.ravel().tolist()) for logits, _ in each}) == len(each), "no view is another"
        for found, of_each in zip(network(averaged)(pixels), zip(*each, strict=True), strict=True):
            torch.testing.assert_close(found, torch.stack(of_each).mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["avg", "max", "gem", "attention"])
def test_the_gradient_of_a_channels_last_map_is_channels_last(
    loaded: dict[str, tuple[LoadedBackbone, Preprocessing, list[int]]], pooling: str
) -> None:
    """Otherwise the backward passes of norm and convolution take far longer."""
    backbone, prep, channels = loaded["test_resnet"]
    suffix = Suffix(copy.deepcopy(backbone.staged), config(unfreeze=1, pooling=pooling), channels, 3)
    with torch.inference_mode():
        below = FrozenPrefix(backbone.staged, prep, suffix.cut, [])(pixels_of(prep))
    gradients: list[Tensor] = []
    suffix.trained_stages()[-1].register_full_backward_hook(lambda module, _, given: gradients.extend(given))
    activation = below.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
    suffix(activation, None).sum().backward()
    assert gradients[0].is_contiguous(memory_format=torch.channels_last)
