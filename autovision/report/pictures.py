"""Images within a page: small, and as data of the page itself."""

from __future__ import annotations

import base64
import io

from PIL import Image

from autovision import image
from autovision.errors import InvalidImage
from autovision.report.svg import Markup, tag

_THUMBNAIL = 300
"""pixels of the longer side"""


def picture(data: bytes, alt: str) -> Markup:
    """An encoded image as a thumbnail; of one that cannot be decoded, why."""
    try:
        decoded = image.decode(data)
    except InvalidImage as error:
        return tag("p", f"the image cannot be shown: {error}")
    decoded.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    decoded.save(buffer, "JPEG", quality=82)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return tag("img", src=f"data:image/jpeg;base64,{encoded}", alt=alt, loading="lazy")
