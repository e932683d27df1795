"""Answers images with the model of this folder: python load.py IMAGE ...  (requirements.txt says what it needs)"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from portable import answer, checked_manifest, pixels

FOLDER = Path(__file__).parent
MANIFEST = checked_manifest(FOLDER)
NETWORK = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), providers=["CPUExecutionProvider"])


def predict(paths):
    """(label, probability of each class) of each image file."""
    batch = np.stack([pixels(path, MANIFEST["preprocessing"]) for path in paths])
    logits, _embedding = NETWORK.run(None, {NETWORK.get_inputs()[0].name: batch})
    return [answer(row, MANIFEST) for row in logits]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps([path, *predict([path])[0]]))
