"""Heads on one small backbone: an answer in seconds."""

from __future__ import annotations

from autovision.space import Choice, Float, Integer, Space


class Quick(Space):
    """Heads only, on the frozen features of one small backbone.

    Run:    autovision search submit DATASET --space quick --budget-s 60 --wait
    Costs:  the features are computed once for each augmentation, and after that only heads are trained on
            them. No GPU is needed, nor any weights beyond those of the `demo` extra.
    Pick it to see whether a data set can be learned at all, as the baseline for every other space, and for
            data sets of a few hundred images, where fine-tuning has little to work with.
    """

    backbone = "tf_efficientnet_lite0"
    resolution = 224
    drop_stages = Integer(0, 3, default=0)
    taps = Integer(1, 4, default=3)
    pooling = Choice("avg", "avgmax", "gem", "max")
    head = Choice("linear", "mlp", "cosine")
    head_width = Integer(64, 512, log=True, when={"head": "mlp"})
    dropout = Float(0.0, 0.5, default=0.2)
    unfreeze = 0

    augmentation = Choice("none", "flip")
    mixup = Choice(0.0, 0.2, 0.4)
    class_weighting = Choice("none", "balanced")

    optimizer = "adamw"
    lr = Float(3e-4, 3e-2, log=True)
    weight_decay = Float(1e-5, 1e-1, log=True)
    label_smoothing = Float(0.0, 0.2, default=0.05)
    epochs = Integer(10, 60, log=True, default=30)
    batch_size = 64
