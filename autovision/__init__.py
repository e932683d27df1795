"""AutoVision: automated transfer learning for computer vision on Ray.

    images -> dataset -> search -> trial -> registry -> promotion -> serving
                 ^                                                     | captured requests, labels
                 +---------- retraining <-- monitoring <---------------+

`AutoVision` is the Python API; the command `autovision` is a thin layer over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autovision.api import AutoVision as AutoVision

__all__ = ["AutoVision"]


def __getattr__(name: str) -> Any:
    # Imported on first use: `import autovision` must not pay for torch and Ray.
    if name == "AutoVision":
        from autovision.api import AutoVision

        return AutoVision
    raise AttributeError(f"module 'autovision' has no attribute {name!r}")
