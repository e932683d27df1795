"""Objects that nothing refers to: what an interrupted import, search or export left, or what lost its record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from autovision.store import keys
from autovision.store.protocol import Entry
from autovision.upkeep.references import References

_PATTERNS = {
    "image": r"images/[0-9a-f]{2}/(?P<digest>[0-9a-f]{64})",
    "manifest": r"datasets/[^/]+/manifests/[^/]+\.parquet",
    "trial": r"searches/[^/]+/weights/[^/]+\.safetensors",
    "checkpoint": r"(?P<search>searches/[^/]+/)checkpoints/[^/]+\.safetensors",
    "file": r"models/(?P<model>[^/]+)/files/(?P<digest>[0-9a-f]{64})-[^/]+",
    "about": r"models/(?P<model>[^/]+)/(?:(?:parity|int8)/[^/]+\.json|(?:reference|taught)/[^/]+\.safetensors)"
    r"|evaluations/(?P<of>[^/]+)/[^/]+\.parquet",
    "window": r"deployments/[^/]+/windows/(?P<digest>[0-9a-f]{64})\.safetensors",
    "probe": r"probes/.*",
    "weights": r"weights/files/(?P<digest>[0-9a-f]{64})\.safetensors",
}
"""kinds of objects that are there for another one's sake; all others are there for their own"""


def orphans(entries: Iterable[Entry], references: References) -> Iterator[Entry]:
    """Those of the objects that may be removed, as far as references go."""
    listed = list(entries)
    models = {entry.key.split("/")[1] for entry in listed if _is_model(entry.key)}
    going = {
        entry.key.partition("begun/")[0] for entry in listed if re.match(r"searches/[^/]+/begun/", entry.key)
    }
    for entry in listed:
        for kind, pattern in _PATTERNS.items():
            if match := re.fullmatch(pattern, entry.key):
                if entry.key not in references.keys and not _is_wanted(
                    kind, match, references, models, going
                ):
                    yield entry
                break


def _is_wanted(
    kind: str, match: re.Match[str], references: References, models: set[str], going: set[str]
) -> bool:
    said = match.groupdict()
    match kind:
        case "image" | "weights" | "window":
            return said["digest"] in references.digests
        case "file":
            return said["model"] in models and said["digest"] in references.digests
        case "about":
            return (said["model"] or said["of"]) in models
        case "checkpoint":
            return said["search"] in going
        case _:
            return False


def _is_model(key: str) -> bool:
    return key.startswith(keys.MODELS) and key.endswith("/model.json")
