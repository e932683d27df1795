"""Quantize a converted network by NNCF, in a process of its own.

NNCF changes how a whole process logs and prints, and takes memory that it does not give back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from autovision.errors import AutoVisionError
from autovision.model import telemetry

_PATIENCE_S = 3600.0


def quantize(source: Path, pixels: np.ndarray, path: Path, *, transformer: bool, halved: bool) -> None:
    """Write the network of `source` in int8 to `path`, weights and activations by the ranges that the images give.

    Args:
        pixels: uint8 (N, H, W, 3).
        transformer: whether it is one, which NNCF treats otherwise.
        halved: whether weights take half of the range, so that sums of bytes cannot overflow.

    Raises:
        AutoVisionError: it cannot be quantized.
    """
    with tempfile.TemporaryDirectory(prefix="autovision-int8-") as folder:
        images = Path(folder) / "images.npy"
        np.save(images, pixels)
        task = json.dumps([str(source), str(images), str(path), transformer, halved])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__],
            input=task,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AutoVisionError(f"NNCF cannot quantize this network ({last[:200]}); serve it as it is")


def main() -> None:
    telemetry.silence()
    import nncf
    import openvino as ov

    source, images, path, transformer, halved = json.loads(sys.stdin.read())
    options = {"model_type": nncf.ModelType.TRANSFORMER} if transformer else {}
    if halved:
        options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE
        )
    pixels = np.load(images)
    dataset = nncf.Dataset([image[None] for image in pixels])
    made = nncf.quantize(ov.Core().read_model(source), dataset, subset_size=len(pixels), **options)
    ov.save_model(made, path, compress_to_fp16=False)


if __name__ == "__main__":
    main()
