"""Where images come from: a folder of class folders (`folders`), or a table (`tables`)."""

from __future__ import annotations

from pathlib import Path

from autovision.dataset.folders import read_folder
from autovision.dataset.listing import Listing, SourceImage, expanded
from autovision.dataset.tables import read_csv, read_parquet
from autovision.errors import InvalidInput, near

__all__ = ["Listing", "SourceImage", "read"]


def read(path: Path, *, follow_links: bool = False) -> Listing:
    """The images that a folder of class folders or a table names.

    Args:
        follow_links: also those that lead out of a folder. A table names whatever it names.

    Raises:
        InvalidInput: the path does not exist or is neither; a folder without class folders or images; a table
            that cannot be read, lacks a column, or has an unknown split or a confidence that is not 0 to 1.
    """
    if "\0" in str(path):
        raise InvalidInput(f"the path {str(path)!r} has a NUL character; leave it out")
    path = expanded(path)
    try:
        if path.is_dir():
            return read_folder(path, follow_links=follow_links)
        if not path.exists():
            raise InvalidInput(f"there is no file or folder {str(path)!r}{_near_path(path)}; check the path")
        match path.suffix.lower():
            case ".csv":
                return read_csv(path)
            case ".parquet":
                return read_parquet(path)
    except OSError as error:
        raise InvalidInput(
            f"cannot read {str(path)!r}: {error.strerror}; check its rights and its disk"
        ) from error
    raise InvalidInput(
        f"{str(path)!r} is neither a folder of class folders nor a table that ends in .csv or .parquet; "
        "give one of these"
    )


def _near_path(path: Path) -> str:
    return near(path.name, (entry.name for entry in path.parent.iterdir())) if path.parent.is_dir() else ""
