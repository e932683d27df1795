"""Images that have no up or down, such as surfaces, cells and tissue: every symmetry of the square is a view."""

from __future__ import annotations

from autovision.space import Choice, Float, Integer, Space


class Inspection(Space):
    """Heads on all stages of three EfficientNet-Lite backbones, under flips and quarter turns, and up to two stages.

    Run:    autovision search submit DATASET --space inspection --budget-s 600 --wait
    Costs:  made for five to thirty minutes on two cores. The eight views of `dihedral` are eight times the features;
            a model whose answers are the mean over them takes eight times the arithmetic when it serves.
    Pick it for textures: surfaces, solar cells, wafers, microscopy, aerial images, where a defect is one whichever way
            the image lies. Not for text, faces or traffic signs, which have an up and a left.
    """

    # The default is the cheapest thing that is known to work: one view, a head on features of all depths.
    backbone = Choice("tf_efficientnet_lite0", "tf_efficientnet_lite2", "tf_efficientnet_lite1")
    resolution = Choice(224, 300, 160)
    drop_stages = Integer(0, 2, default=0)
    taps = Integer(2, 7, default=6)
    pooling = Choice("avgmax", "avg", "gem")
    head = Choice("mlp", "linear", "cosine")
    head_width = Integer(64, 512, log=True, default=256, when={"head": "mlp"})
    dropout = Float(0.0, 0.6, default=0.3)

    unfreeze = Integer(0, 2, default=0)
    backbone_lr_ratio = Float(0.02, 0.5, log=True, when={"unfreeze": (1, 2)})
    # With one stage unfrozen there is no stage below it for the rate to decay to.
    layer_decay = Float(0.4, 1.0, default=0.7, when={"unfreeze": 2})

    augmentation = Choice("none", "dihedral", "flip")
    test_time_augmentation = Choice("dihedral", "none", when={"augmentation": "dihedral"})
    mixup = Choice(0.0, 0.2, 0.4)
    class_weighting = Choice("none", "balanced")
    confidence_weighting = Choice(False, True)

    optimizer = "adamw"
    lr = Float(2e-4, 1e-2, log=True, default=1e-3)
    weight_decay = Float(1e-4, 2e-1, log=True, default=2e-2)
    label_smoothing = Float(0.0, 0.2, default=0.05)
    ema = Choice(0.99, 0.0)
    epochs = Integer(8, 60, log=True, default=30)
    batch_size = Choice(64, 32)
