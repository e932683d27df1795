"""Answers images with the model of this folder: python load.py IMAGE ...  (requirements.txt says what it needs)"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from portable import answer, checked_manifest, pixels
from safetensors.torch import load_file

FOLDER = Path(__file__).parent
MANIFEST = checked_manifest(FOLDER)
NETWORK = torch.export.load(FOLDER / "program.pt2").module()
NETWORK.load_state_dict(load_file(FOLDER / "model.safetensors"), assign=True)


@torch.inference_mode()
def predict(paths):
    """(label, probability of each class) of each image file."""
    batch = np.stack([pixels(path, MANIFEST["preprocessing"]) for path in paths])
    logits, _embedding = NETWORK(torch.from_numpy(batch))
    return [answer(row, MANIFEST) for row in logits.numpy()]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps([path, *predict([path])[0]]))
