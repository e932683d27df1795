"""RandAugment and TrivialAugment: torchvision's operations, drawn by digest."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from autovision.features import policies
from autovision.features.policies import OPERATIONS, Plan, Step

MOVED = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}


def picture(side: int = 56) -> np.ndarray:
    """Smooth colours with some noise, so that every operation shows."""
    y, x = np.mgrid[0:side, 0:side] * 3.0
    noise = np.random.default_rng(0).integers(0, 40, (side, side, 3))
    return (np.stack([x, y, (x + y) / 2], -1) + noise).clip(10, 235).astype(np.uint8)


def reference_views(reference: v2.Transform, pixels: np.ndarray, draws: int) -> np.ndarray:
    """The distinct images (N, values) that torchvision's own class makes in many draws."""
    image = Image.fromarray(pixels)
    torch.manual_seed(0)
    made = {np.asarray(reference(image)).tobytes() for _ in range(draws)}
    return np.stack([np.frombuffer(one, np.uint8) for one in made]).astype(np.int16)


def own_views(steps: set[Step], pixels: np.ndarray) -> np.ndarray:
    views = [policies.perform(Plan(False, (step,)), pixels).reshape(-1) for step in steps]
    return np.stack(views).astype(np.int16)


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Largest difference of a value between each of some images and each of the others."""
    return np.stack([abs(others - one).max(1) for one in some])


@pytest.mark.parametrize("magnitude", [9, 30])
def test_every_operation_gives_what_torchvision_gives(magnitude: int) -> None:
    """Angles are float32 there and float64 here, which may turn a rounding."""
    reference = v2.RandAugment(1, magnitude, 31, InterpolationMode.BILINEAR, [128, 128, 128])
    steps = {step for i in range(400) for step in policies.randaugment(str(i), "a view", magnitude).steps}
    assert {step.operation for step in steps} == set(OPERATIONS)
    apart = distances(own_views(steps, picture()), reference_views(reference, picture(), 400))
    assert (apart.min(0) <= 1).all()
    assert (apart.min(1) <= 1).all()


def test_trivial_augment_draws_what_torchvision_draws() -> None:
    pixels = picture(224)  # of this size, since it translates by 32 pixels of any, and by a seventh here
    reference = v2.TrivialAugmentWide(31, InterpolationMode.BILINEAR, [128, 128, 128])
    steps = {
        policies._step(operation, sign, level, policies._TRIVIALAUGMENT)
        for operation in range(len(OPERATIONS))
        for sign in (0, 1)
        for level in range(31)
    }
    # At level 15 the reference means to move by 16 pixels, and falls short of them by a rounding.
    steps |= {Step(f"translate_{axis}", sign * 15 / 224) for axis in "xy" for sign in (-1, 1)}
    own = own_views(steps, pixels)
    for theirs in reference_views(reference, pixels, 30):
        # Which come into question is told by every hundredth value.
        nearest = own[np.argsort((abs(own[:, ::101] - theirs[::101]) > 1).mean(1))[:20]]
        # A rounding may also put one grey value on the other side of the threshold of `solarize`.
        assert (abs(nearest - theirs) > 1).mean(1).min() < 0.015


def test_draws_are_even() -> None:
    plans = [policies.randaugment(f"{i:064x}", "randaugment9:1", 9) for i in range(4000)]
    counts = Counter(step.operation for plan in plans for step in plan.steps)
    assert set(counts) == set(OPERATIONS)
    expected = 8000 / len(OPERATIONS)
    # Five standard deviations of a binomial count.
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())
    assert abs(sum(plan.mirrored for plan in plans) - 2000) < 5 * 1000**0.5
    signs = Counter(step.argument > 0 for plan in plans for step in plan.steps if step.operation in MOVED)
    assert abs(signs[True] - signs[False]) < 5 * signs.total() ** 0.5
    levels = Counter(
        round(abs(policies.trivialaugment(str(i), "trivialaugment:1").steps[0].argument), 3)
        for i in range(4000)
        if policies.trivialaugment(str(i), "trivialaugment:1").steps[0].operation == "rotate"
    )
    assert len(levels) == 31


def test_images_and_views_are_drawn_apart() -> None:
    plans = {
        policies.randaugment(image, f"randaugment9:{view}", 9) for image in "abcdefgh" for view in range(1, 9)
    }
    assert len(plans) > 50


def test_a_mirrored_view_is_mirrored_first() -> None:
    pixels = picture()
    nothing = Plan(True, (Step("identity", 0.0),))
    np.testing.assert_array_equal(policies.perform(nothing, pixels), pixels[:, ::-1])
    moved = policies.perform(Plan(True, (Step("translate_x", 0.25),)), pixels)
    np.testing.assert_array_equal(moved[:, 20:], pixels[:, ::-1][:, 6:-14])


def test_draws_are_those_of_every_process_and_version() -> None:
    """What is stored was drawn so: another draw needs another `COMPUTATION` in `autovision.features.spec`."""
    drawn = policies.randaugment("a" * 64, "randaugment9:3", 9)
    assert not drawn.mirrored
    assert [step.operation for step in drawn.steps] == ["identity", "translate_y"]
    assert drawn.steps[1].argument == pytest.approx(0.3 * 150 / 331)
    drawn = policies.trivialaugment("a" * 64, "trivialaugment:2147483647")
    assert drawn.mirrored
    assert drawn.steps == (Step("color", pytest.approx(-26 / 30 * 0.99)),)  # type: ignore[arg-type]
