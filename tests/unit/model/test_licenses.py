"""Licences of weights."""

from __future__ import annotations

import pytest

from autovision.errors import InvalidInput
from autovision.model import licenses


def test_many_spellings_are_one() -> None:
    assert licenses.parse(["MIT, Apache-2.0", "mit"]) == ("apache-2.0", "mit")
    assert licenses.parse([]) == ()


@pytest.mark.parametrize("name", ["", "Apache 2.0", "mit,,apache-2.0", "-mit", "x" * 101])
def test_what_is_no_name_of_a_licence_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"is not the name of a licence; .*Apache-2\.0"):
        licenses.parse([name])


@pytest.mark.parametrize(
    ("allowed", "license_", "may"),
    [
        ((), "cc-by-nc-4.0", True),
        ((), licenses.UNKNOWN, True),
        (("apache-2.0", "mit"), "Apache-2.0", True),
        (("apache-2.0", "mit"), "cc-by-nc-4.0", False),
        (("apache-2.0", "mit"), licenses.UNKNOWN, False),
        (("apache-2.0",), licenses.NOT_NEEDED, True),
        (("unknown",), licenses.UNKNOWN, True),
    ],
)
def test_which_weights_may_be_used(allowed: tuple[str, ...], license_: str, may: bool) -> None:
    assert licenses.permits(allowed, license_) is may
