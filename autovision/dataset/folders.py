"""Images in folders: one folder for each class, named by the class; images may lie deeper inside.

Folders `train`, `validation` (or `val`) and `test` above the class folders give the splits.

A link that leads out of the folder may have come with it from a stranger, and lead to what only the reader may see: it
is left out unless asked for.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from autovision.dataset.listing import SPLIT_NAMES, Listing, SourceImage, printable
from autovision.errors import InvalidInput
from autovision.image import EXTENSIONS
from autovision.records.datasets import ImportProblem, Split


def read_folder(root: Path, *, follow_links: bool = False) -> Listing:
    """The images below `root`; no image is opened.

    Args:
        follow_links: also those that lead out of it.

    Raises:
        InvalidInput: no class folders, or none of them holds an image.
        OSError: a folder cannot be read.
    """
    inside = None if follow_links else root.resolve()
    entries = sorted(root.iterdir(), key=lambda entry: entry.name)
    outside = [entry for entry in entries if _leads_out(entry, inside)]
    folders = [
        entry
        for entry in entries
        if entry not in outside and entry.is_dir() and not entry.name.startswith(".")
    ]
    problems = [_outside(entry, root) for entry in outside]
    problems += [_ignored(entry, root) for entry in entries if entry not in (*folders, *outside)]
    if not folders:
        images = sum(entry.suffix.lower() in EXTENSIONS for entry in entries)
        found = f"it holds {images} images, but no folder" if images else "it holds no folder and no image"
        if outside:
            found += f" (but {len(outside)} links that lead out of it, which --follow-links takes)"
        raise InvalidInput(
            f"{str(root)!r} is not a folder of class folders: {found}; make one folder for each class "
            "and put its images inside"
        )
    sources: list[SourceImage] = []
    for folder, split in _class_folders(folders):
        if _leads_out(folder, inside):  # below a folder that is named after a split
            problems.append(_outside(folder, root))
            continue
        found_sources, found_problems = _read_class(root, folder, split, inside)
        sources += found_sources
        problems += found_problems
    if not sources:
        raise InvalidInput(
            f"none of the {len(folders)} folders in {str(root)!r} holds an image; images are files that "
            f"end in {', '.join(sorted(EXTENSIONS))}"
        )
    return Listing(tuple(sources), tuple(problems))


def _class_folders(folders: list[Path]) -> Iterator[tuple[Path, Split | None]]:
    """Class folders, below folders that are named after splits if there are only such."""
    splits = [SPLIT_NAMES.get(folder.name.lower()) for folder in folders]
    inner = {folder: sorted(entry for entry in folder.iterdir() if entry.is_dir()) for folder in folders}
    if Split.TRAIN in splits and None not in splits and all(inner.values()):
        for folder, split in zip(folders, splits, strict=True):
            yield from ((below, split) for below in inner[folder] if not below.name.startswith("."))
    else:
        yield from ((folder, None) for folder in folders)


def _read_class(
    root: Path, folder: Path, split: Split | None, inside: Path | None
) -> tuple[list[SourceImage], list[ImportProblem]]:
    # File systems differ in how they compose letters such as é; labels must not.
    label = unicodedata.normalize("NFC", folder.name)
    sources, problems = [], []
    for path in _files(folder):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in EXTENSIONS:
            problems.append(_ignored(path, root))
        elif _leads_out(path, inside):
            problems.append(_outside(path, root))
        else:
            shown = path.relative_to(root).as_posix()
            sources.append(SourceImage(label, path, source=printable(shown), split=split))
    if not sources:
        problems.insert(
            0,
            ImportProblem(
                path=printable(folder.relative_to(root).as_posix()),
                kind="empty_class",
                message=f"the class folder {label!r} holds no image and is left out",
            ),
        )
    return sources, problems


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _leads_out(path: Path, inside: Path | None) -> bool:
    """Whether a path is a link to a place that is not inside; None: every place is."""
    return inside is not None and path.is_symlink() and not path.resolve().is_relative_to(inside)


def _outside(path: Path, root: Path) -> ImportProblem:
    shown = printable(path.relative_to(root).as_posix())
    return ImportProblem(
        path=shown,
        kind="outside",
        message="left out: a link that leads out of the folder; --follow-links takes what it leads to",
    )


def _ignored(path: Path, root: Path) -> ImportProblem:
    if path.name.startswith("."):
        why = "hidden"
    elif path.suffix.lower() in EXTENSIONS:
        why = "not in a class folder"
    else:
        why = "no image by its name"
    shown = printable(path.relative_to(root).as_posix())
    return ImportProblem(path=shown, kind="ignored", message=f"ignored: {why}")
