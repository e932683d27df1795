"""Which labelled images show nearly the same: one part that was photographed fifty times is one label.

Images that look alike but are labelled differently stay apart: what a defect changes may be too small for a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from autovision import image
from autovision.dataset.manifest import Row
from autovision.duplicates import MOST_BITS, alike_by_hash, components, perceptual_hash
from autovision.errors import InvalidImage
from autovision.records.deployments import Capture
from autovision.store import captures, keys
from autovision.store.protocol import Store


@dataclass
class Alike:
    """Remembers the hashes of labelled images, of which each is read and decoded once: some milliseconds."""

    _hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """by deployment: image -> perceptual hash; empty if it has none, or is gone"""

    def families(
        self,
        store: Store,
        deployment: str,
        found: Sequence[Capture],
        known: Sequence[Row],
        bits: int | None,
    ) -> dict[str, str]:
        """Image -> the first of those it hangs together with, of all that resemble another one.

        Found as an import finds near-duplicates: where nearly all images look alike by nature, fewer bits may differ.

        Args:
            found: labelled captures.
            known: images of the data set, whose hashes lie with them.
            bits: up to so many different bits make a near-duplicate in this data; below 0 only the same bytes do;
                None: in general.
        """
        most = MOST_BITS if bits is None else bits
        if most < 0:
            return {}
        old = {row.image: row.perceptual_hash for row in known if row.perceptual_hash}
        new = self._hashed(store, deployment, [each for each in found if each.image not in old])
        edges = [(pair.first, pair.second) for pair in alike_by_hash(new, old, most_bits=most).pairs]
        together = components({name for edge in edges for name in edge}, edges)
        return {name: members[0] for members in together for name in members}

    def _hashed(self, store: Store, deployment: str, found: Sequence[Capture]) -> dict[str, str]:
        wanted = {each.image: each for each in found if each.pixels}
        before = self._hashes.get(deployment, {})
        hashes = {digest: before[digest] for digest in wanted if digest in before}
        places: tuple[Callable[[Capture], str], ...] = (
            captures.image_key,
            lambda each: keys.image(each.image),
        )
        for place in places:
            missing = {place(each): each.image for each in wanted.values() if each.image not in hashes}
            for key, blob in store.get_many(missing):
                hashes[missing[key]] = _hash(blob.data)
        self._hashes[deployment] = dict.fromkeys(wanted, "") | hashes
        return self._hashes[deployment]


def _hash(data: bytes) -> str:
    try:
        return perceptual_hash(image.decode(data))
    except InvalidImage:
        return ""
