"""OpenVINO and NNCF are imported so that they tell nobody of their use.

Left to themselves they send events to Google Analytics: on import, and a dozen with each network that is converted.
Each is sent by a copy of the whole process, forked for it, which takes about as long as the conversion itself; and
nobody was asked.
"""

from __future__ import annotations

import sys

_SENDER = "openvino_telemetry"


def silence() -> None:
    """Before the first import of either: where the package that sends cannot be imported, both do without."""
    sys.modules.setdefault(_SENDER, None)  # type: ignore[arg-type]
