"""Views: named, in order, and the same whoever makes them."""

from __future__ import annotations

import threading
from typing import get_args

import numpy as np
import pytest
import torch

from autovision import image
from autovision.errors import InvalidInput
from autovision.features.views import IDENTITY, MOST_VIEWS, Views, apply
from autovision.space.config import RANDOM_AUGMENTATIONS, Augmentation

NAMES = [f"{i:064x}" for i in range(6)]
RANDOM = [Views("randaugment", 9, 3), Views("randaugment", 30, 3), Views("trivialaugment", count=3)]


def pixels_of(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 48, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("augmentation", get_args(Augmentation))
def test_the_image_itself_is_the_first_view_of_all(augmentation: Augmentation) -> None:
    views = Views(augmentation, count=4)
    names = views.names()
    assert names[0] == IDENTITY
    assert len(set(names)) == len(names) == views.number
    assert apply(pixels_of(), NAMES, views.name(0)) is not None
    np.testing.assert_array_equal(apply(pixels_of(), NAMES, IDENTITY), pixels_of())


@pytest.mark.parametrize("augmentation", ["flip", "dihedral", "crop"])
def test_fixed_views_are_those_of_the_image_module(augmentation: Augmentation) -> None:
    for index, name in enumerate(Views(augmentation).names()):
        np.testing.assert_array_equal(
            apply(pixels_of(), NAMES, name), image.apply_view(pixels_of(), augmentation, index)
        )


def test_names_tell_what_a_view_depends_on() -> None:
    assert Views("flip").names() == [IDENTITY, "flip:1"]
    assert Views("randaugment", 9, 2).names() == [IDENTITY, "randaugment9:1", "randaugment9:2"]
    assert Views("trivialaugment", 5, 1).names() == [IDENTITY, "trivialaugment:1"]
    assert Views("randaugment", 9, 5).names()[:3] == Views("randaugment", 9, 2).names(), (
        "more views keep the old ones"
    )


@pytest.mark.parametrize("augmentation", RANDOM_AUGMENTATIONS)
def test_views_that_are_drawn_afresh_are_without_limit(augmentation: Augmentation) -> None:
    views = Views(augmentation)
    assert views.number is None
    assert views.name(MOST_VIEWS - 1).endswith(f":{MOST_VIEWS - 1}")
    apply(pixels_of(), NAMES, views.name(MOST_VIEWS - 1))
    with pytest.raises(InvalidInput, match="none of number"):
        views.name(MOST_VIEWS)


@pytest.mark.parametrize("views", [Views(), Views("flip"), Views("randaugment", 9, 3)])
def test_there_is_no_view_beyond_the_last(views: Views) -> None:
    assert views.number is not None
    for index in (-1, views.number):
        with pytest.raises(InvalidInput, match=f"and none of number {index}"):
            views.name(index)


@pytest.mark.parametrize("name", ["", "flip", "flip:", "swirl:1", "randaugment9:-1"])
def test_what_names_no_view_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="names no view"):
        apply(pixels_of(), NAMES, name)


@pytest.mark.parametrize("views", RANDOM)
def test_a_random_view_depends_on_image_and_name_alone(views: Views) -> None:
    pixels = pixels_of()
    for name in views.names()[1:]:
        together = apply(pixels, NAMES, name)
        assert together.dtype == np.uint8
        assert together.shape == pixels.shape
        torch.manual_seed(hash(name) % 1000)  # the state of the common generator does not matter
        alone = [apply(pixels[i : i + 1], NAMES[i : i + 1], name)[0] for i in (4, 0, 2)]
        np.testing.assert_array_equal(np.stack(alone), together[[4, 0, 2]])


def test_random_views_leave_the_common_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    apply(pixels_of(), NAMES, "randaugment9:1")
    torch.testing.assert_close(torch.rand(4), expected)


def test_other_views_magnitudes_and_images_differ() -> None:
    same = np.repeat(pixels_of(1), 12, 0)
    names = [f"{i:064x}" for i in range(12)]
    seen = [
        apply(same, names, name)
        for name in ("randaugment9:1", "randaugment9:2", "randaugment20:1", "trivialaugment:1")
    ]
    assert len({view.tobytes() for view in seen}) == 4
    assert len({row.tobytes() for row in seen[0]}) > 8


def test_threads_make_the_same_views() -> None:
    expected = [apply(pixels_of(), NAMES, views.name(1)) for views in RANDOM]
    wrong: list[Views] = []

    def work(which: int) -> None:
        for _ in range(5):
            torch.manual_seed(which)
            if not np.array_equal(apply(pixels_of(), NAMES, RANDOM[which].name(1)), expected[which]):
                wrong.append(RANDOM[which])

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1, 2, 0, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
