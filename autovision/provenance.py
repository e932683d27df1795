"""Which code made a model: the package's version with a digest of its source, and the versions of what it used."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("ray", "torch", "torchvision", "timm", "optuna", "openvino", "numpy", "pyarrow", "pillow")


@functools.cache
def code_version() -> str:
    """`0.1.0+<digest of the source>`: it changes with every line of this package."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{metadata.version('autovision')}+{digest.hexdigest()[:12]}"


@functools.cache
def package_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}


@functools.cache
def processor() -> str:
    """The CPU's model, as it calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
