"""Which cells play which role."""

from __future__ import annotations

from PIL import Image

from autovision.demo import plant
from autovision.duplicates import alike_by_hash, perceptual_hash


def test_no_cell_and_no_twin_of_it_is_in_two_roles() -> None:
    cells = plant.share_out(0)
    roles = vars(cells)
    assert {name: len(role) for name, role in roles.items()} == {
        "development": 954, "mono_traffic": 120, "poly_traffic": 900, "poly_held_out": 650
    }  # fmt: skip
    assert len({cell.path for role in roles.values() for cell in role}) == 2624
    hashes, of_role = {}, {}
    for name in ("poly_traffic", "poly_held_out"):
        for cell in roles[name]:
            assert cell.path is not None
            with Image.open(cell.path) as image:
                hashes[str(cell.path)] = perceptual_hash(image)
            of_role[str(cell.path)] = name
    pairs = alike_by_hash(hashes, {}).pairs
    assert len(pairs) > 100
    # By chance some have twins among the mono cells, and through them among the others: these go together, too.
    assert [pair for pair in pairs if of_role[pair.first] != of_role[pair.second]] == []
