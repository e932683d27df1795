"""The solar cells of the demo: electroluminescence images of the PyPI package `elpv-dataset`.

Deitsch et al., Segmentation of photovoltaic module cells in uncalibrated electroluminescence images, 2021
(doi:10.1007/s00138-021-01191-9); Buerhop-Lutz et al., A benchmark for visual identification of defective
solar cells in electroluminescence imagery, 2018. 2,624 cells, 300 by 300 pixels, 8-bit grey. The images are
CC BY-NC-SA 4.0: they are read where the package installed them.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from autovision.dataset.listing import SourceImage
from autovision.errors import CorruptObject, NotFound

DEFECTIVE = "defective"
FUNCTIONAL = "functional"


def load_elpv() -> list[SourceImage]:
    """All cells, in the order of the package.

    A cell is `defective` if experts gave its defect a probability above 0.5. The label's confidence is the
    distance of that probability from 0.5, scaled to 0 to 1: 1 for the probabilities 0 and 1, and 1/3 for 1/3
    and 2/3. Metadata: `cell_type` (`mono` or `poly`) and `probability` (three decimals).

    Raises:
        NotFound: the package is not installed.
        CorruptObject: the package lacks its table of labels, or the table cannot be understood.
    """
    folder = _package_folder() / "data"
    try:
        lines = (folder / "labels.csv").read_text(encoding="utf-8").splitlines()
        return [_cell(folder, *line.split()) for line in lines if line.strip()]
    except (OSError, TypeError, ValueError) as error:
        raise CorruptObject(
            f"the labels of the package elpv-dataset cannot be read: {error}; install it again with "
            "pip install --force-reinstall elpv-dataset"
        ) from error


def _package_folder() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise NotFound(
            "the solar cells are not installed; install the extra `demo`: pip install 'autovision[demo]'"
        )
    return Path(spec.origin).parent


def _cell(folder: Path, file: str, probability_text: str, cell_type: str) -> SourceImage:
    probability = float(probability_text)
    return SourceImage(
        label=DEFECTIVE if probability > 0.5 else FUNCTIONAL,
        path=folder / file,
        source=file,
        confidence=2 * abs(probability - 0.5),
        metadata={"cell_type": cell_type, "probability": f"{probability:.3f}"},
    )
