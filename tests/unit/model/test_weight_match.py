"""Whose tensors are whose."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from autovision.errors import InvalidWeights
from autovision.model import weight_match

Tensors = dict[str, Tensor]


def other_weights(name: str, **options: object) -> Tensors:
    """Weights that are nobody else's, floating and whole numbers alike."""
    own = timm.create_model(name, **options).state_dict()
    torch.manual_seed(7)
    return {
        key: torch.randn_like(value) if value.is_floating_point() else value + 5 for key, value in own.items()
    }


def matched(tensors: Tensors, name: str = "test_resnet") -> Tensors:
    return weight_match.match(tensors, timm.create_model(name), "weights file x.pth")


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture
def whole() -> Tensors:
    return other_weights("test_resnet")


def backbone_of(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "backbone.", "module.encoder.trunk."])
def test_names_decide_behind_any_prefix(prefix: str, whole: Tensors) -> None:
    backwards = {prefix + name: whole[name] for name in reversed(whole)}
    assert_same(matched(backwards), whole)


def test_what_stands_beside_the_backbone_is_left_out(whole: Tensors) -> None:
    given = {f"backbone.{name}": tensor for name, tensor in backbone_of(whole).items()}
    assert_same(matched({**given, "head.weight": torch.zeros(3, 9)}), backbone_of(whole))


def test_a_head_of_other_classes_is_left_out(whole: Tensors) -> None:
    assert_same(matched(other_weights("test_resnet", num_classes=7)), backbone_of(whole))


def test_a_head_of_another_kind_or_none_is_fine(whole: Tensors) -> None:
    assert_same(matched({**backbone_of(whole), "fc.1.weight": torch.zeros(7, 4)}), backbone_of(whole))
    assert_same(matched(other_weights("test_resnet", num_classes=0)), backbone_of(whole))


def test_other_names_are_matched_by_order_and_shape(whole: Tensors) -> None:
    renamed = {
        f"layer{i}.{name.rpartition('.')[2]}": tensor
        for i, (name, tensor) in enumerate(whole.items())
        if not name.endswith("num_batches_tracked")
    }
    found = matched(renamed)
    assert len(found) == len(renamed)
    assert all(torch.equal(found[name], whole[name]) for name in found)


def test_other_names_in_another_order_are_not_mixed_up(whole: Tensors) -> None:
    """By shape alone, the four vectors of a batch normalization could be exchanged without notice."""
    renamed = {
        f"layer{i:04d}.{name.rpartition('.')[2]}": tensor
        for i, (name, tensor) in enumerate(whole.items())
        if not name.endswith("num_batches_tracked")
    }
    norm = [name for name, tensor in renamed.items() if tensor.dim() == 1][:4]
    assert {name.rpartition(".")[2] for name in norm} == {"weight", "bias", "running_mean", "running_var"}
    order = list(renamed)
    first, second = order.index(norm[0]), order.index(norm[1])
    order[first], order[second] = order[second], order[first]
    with pytest.raises(InvalidWeights, match=r"another order .*rename them as timm does"):
        matched({name: renamed[name] for name in order})


def test_a_part_of_a_larger_network_is_not_a_smaller_one() -> None:
    """All names and shapes of ResNet-18 are in ResNet-34."""
    larger = timm.create_model("resnet34").state_dict()
    with pytest.raises(InvalidWeights, match=r"another network than backbone 'resnet18'.*layer1\.2\.conv1"):
        matched(larger, "resnet18")
    with pytest.raises(InvalidWeights, match=r"layer1\.2\.conv1\.weight.*name the backbone that they are"):
        matched(timm.create_model("resnet18").state_dict(), "resnet34")


def test_another_width_is_another_network(whole: Tensors) -> None:
    whole["conv1.0.weight"] = torch.zeros(5, 3, 3, 3)
    with pytest.raises(InvalidWeights, match=r"x\.pth: tensor 'conv1\.0\.weight' has shape \(5, 3, 3, 3\)"):
        matched(whole)


def test_another_family_is_another_network(whole: Tensors) -> None:
    with pytest.raises(InvalidWeights, match=r"x\.pth hold .* where the backbone has"):
        matched(whole, "test_vit")


def test_quantised_weights_are_refused(whole: Tensors) -> None:
    whole["conv1.0.weight"] = whole["conv1.0.weight"].to(torch.int8)
    with pytest.raises(InvalidWeights, match=r"type torch\.int8, .*not quantised"):
        matched(whole)


def test_two_networks_in_one_file_are_ambiguous_unless_one_is_the_average(whole: Tensors) -> None:
    zeros = {name: torch.zeros_like(tensor) for name, tensor in whole.items()}
    two = {f"encoder_q.{name}": zeros[name] for name in whole} | {
        f"encoder_k.{name}": whole[name] for name in whole
    }
    with pytest.raises(InvalidWeights, match=r"2 times, under encoder_q\., encoder_k\.; save the one"):
        matched(two)
    averaged = {name.replace("encoder_k", "model_ema"): tensor for name, tensor in two.items()}
    assert_same(matched(averaged), whole)


def loaded(tensors: Tensors, model: nn.Module) -> Tensors:
    weight_match.load(weight_match.match(tensors, model, "weights"), model)
    return model.state_dict()


@pytest.mark.parametrize("name", ["test_vit", "test_vit3", "deit_tiny_distilled_patch16_224"])
def test_position_embeddings_are_interpolated_to_the_input_size(name: str) -> None:
    size = {"deit_tiny_distilled_patch16_224": 96}.get(name, 64)
    tensors = other_weights(name)
    tensors["pos_embed"] = torch.ones_like(tensors["pos_embed"]) * torch.arange(
        tensors["pos_embed"].shape[-1]
    )
    smaller = timm.create_model(name, img_size=size)
    found = loaded(tensors, smaller)
    assert found["pos_embed"].shape[1] == smaller.pos_embed.shape[1] < tensors["pos_embed"].shape[1]
    # What is the same everywhere stays the same between two positions, channel by channel.
    torch.testing.assert_close(found["pos_embed"], tensors["pos_embed"][:, : found["pos_embed"].shape[1]])
    torch.testing.assert_close(found["blocks.0.attn.qkv.weight"], tensors["blocks.0.attn.qkv.weight"])


def test_relative_position_biases_are_interpolated_to_a_smaller_window() -> None:
    name = "swin_tiny_patch4_window7_224"
    tensors, smaller = other_weights(name), timm.create_model(name, img_size=64)
    table = "layers.3.blocks.0.attn.relative_position_bias_table"
    tensors[table] = torch.ones_like(tensors[table])
    assert smaller.state_dict()[table].shape != tensors[table].shape
    found = loaded(tensors, smaller)[table]
    torch.testing.assert_close(found, torch.ones_like(found))


def test_a_position_embedding_of_another_width_is_refused() -> None:
    tensors = other_weights("test_vit")
    tensors["pos_embed"] = torch.zeros(1, 101, 9)
    with pytest.raises(InvalidWeights, match=r"'pos_embed' has shape \(1, 101, 9\)"):
        matched(tensors, "test_vit")
