"""Answers images with the model of this folder: python load.py IMAGE ...  (requirements.txt says what it needs)"""

import json
import sys
from pathlib import Path

import numpy as np
from portable import answer, checked_manifest, pixels

sys.modules["openvino_telemetry"] = None  # without it OpenVINO tells nobody that it is used
import openvino  # noqa: E402

FOLDER = Path(__file__).parent
MANIFEST = checked_manifest(FOLDER)
# bf16 is faster where the processor has it, and answers a little differently.
NETWORK = openvino.Core().compile_model(FOLDER / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def predict(paths):
    """(label, probability of each class) of each image file."""
    batch = np.stack([pixels(path, MANIFEST["preprocessing"]) for path in paths])
    return [answer(row, MANIFEST) for row in NETWORK(batch)[0]]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps([path, *predict([path])[0]]))
