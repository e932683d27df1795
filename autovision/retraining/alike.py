"""Which labelled images show nearly the same: one part that was photographed fifty times is one label.

Images that look alike but are labelled differently stay apart: what a defect changes may be too small for a hash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autovision.dataset import captured
from autovision.dataset.manifest import Row
from autovision.duplicates import MOST_BITS, components, differing, fewer_bits
from autovision.records.datasets import DatasetVersion
from autovision.records.deployments import Capture
from autovision.store.protocol import Store

MOST_KNOWN = 100_000
"""images of a data set that labelled ones are compared with; in one of more they are compared with each other alone"""


@dataclass
class _Compared:
    """What was compared: with the images of one version of a data set."""

    version: str
    images: set[str] = field(default_factory=set)
    pairs: list[tuple[str, str, int]] = field(default_factory=list)
    """and in how many bits they differ"""


@dataclass
class Alike:
    """Remembers the hashes of labelled images, and which are close: each is read, decoded and compared once."""

    _hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """by deployment: image -> perceptual hash; empty if it has none, or is gone"""
    _compared: dict[str, _Compared] = field(default_factory=dict)
    """by deployment"""

    def families(
        self,
        store: Store,
        deployment: str,
        found: Sequence[Capture],
        known: Sequence[Row],
        version: DatasetVersion,
    ) -> dict[str, str]:
        """Image -> the first of those it hangs together with, of all that resemble another one.

        Found as an import finds near-duplicates. Where nearly all of the labelled images look alike by nature, as those
        of a camera that was put up a week ago, fewer bits may differ: else all of them would be one.

        Args:
            found: labelled captures.
            known: images of the data set, whose hashes lie with them.
        """
        if version.hash_bits is not None and version.hash_bits < 0:
            return {}
        old = {row.image: row.perceptual_hash for row in known if row.perceptual_hash}
        new = self._hashed(store, deployment, [each for each in found if each.image not in old])
        pairs = self._pairs(deployment, new, old if len(old) <= MOST_KNOWN else {}, version)
        bits = fewer_bits(
            [pair for pair in pairs if pair[1] in new],
            MOST_BITS if version.hash_bits is None else version.hash_bits,
            len(new),
        )
        edges = [(first, second) for first, second, differ in pairs if differ <= bits]
        together = components({name for edge in edges for name in edge}, edges)
        return {name: members[0] for members in together for name in members}

    def _pairs(
        self, deployment: str, new: Mapping[str, str], old: Mapping[str, str], version: DatasetVersion
    ) -> list[tuple[str, str, int]]:
        """Of labelled images with each other, and with known ones; what was compared before is not compared again."""
        before = self._compared.get(deployment)
        if before is None or before.version != version.digest or not before.images <= new.keys():
            before = self._compared[deployment] = _Compared(version.digest)
        bits = MOST_BITS if version.hash_bits is None else version.hash_bits
        fresh = {name: value for name, value in new.items() if name not in before.images}
        if fresh:
            seen = {name: new[name] for name in before.images}
            before.pairs += differing(fresh, seen | dict(old), bits)
            before.images |= fresh.keys()
        return before.pairs

    def _hashed(self, store: Store, deployment: str, found: Sequence[Capture]) -> dict[str, str]:
        wanted = {each.image: each for each in found if each.pixels}
        before = self._hashes.get(deployment, {})
        hashes = {digest: before[digest] for digest in wanted if digest in before}
        fresh = (each for digest, each in wanted.items() if digest not in hashes)
        hashes |= captured.hashes(store, fresh)
        self._hashes[deployment] = dict.fromkeys(wanted, "") | hashes
        return self._hashes[deployment]
