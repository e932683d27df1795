"""The Python API: what a notebook uses, and what the command line is a thin layer over.

from autovision import AutoVision

av = AutoVision("runs/store")
av.import_dataset("photos/", "flowers")
search = av.search("flowers", space="quick", budget_s=60)
print(av.evaluate(search.model, "flowers")["test"].accuracy)
"""

from __future__ import annotations

from autovision.api.labelled import Labelled
from autovision.api.searches import Searches

__all__ = ["AutoVision"]


class AutoVision(Searches, Labelled):
    """Everything that can be done with one store.

    Args:
        store: URI or folder, or a store that is open; None: `AUTOVISION_STORE`, or the folder `autovision-store` here.
        address: of a Ray cluster; None: `RAY_ADDRESS`, or an embedded Ray that is started when it is needed.
    """
