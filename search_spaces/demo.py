"""What the demo searches on two cores: three small backbones, heads and the last stages."""

from __future__ import annotations

from autovision.space import Choice, Float, Integer, Space


class Demo(Space):
    """Three EfficientNet-Lite backbones, their heads and up to two of their last stages.

    Run:    autovision demo --budget-s 120
            autovision search submit DATASET --space demo --budget-s 120 --wait
    Costs:  made for two minutes on two cores without a GPU. Every backbone, resolution and augmentation is
            one more set of features to compute; the heads on them are nearly free, unfrozen stages take the
            rest.
    Pick it for up to some thousands of images on a laptop, when minutes may be spent; its weights come with
            the `demo` extra, so that nothing is downloaded while searching. It reads the labels' confidence:
            without one in the data set, `confidence_weighting` has nothing to weigh.
    """

    # The default is the cheapest thing that is known to work: multi-stage features, a linear head.
    backbone = Choice("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
    resolution = Choice(224, 160)
    drop_stages = Integer(0, 2, default=0)
    taps = Integer(1, 4, default=3)
    pooling = Choice("avg", "avgmax", "gem")
    head = Choice("linear", "mlp", "cosine")
    head_width = Integer(64, 512, log=True, when={"head": "mlp"})
    dropout = Float(0.0, 0.5, default=0.2)

    unfreeze = Integer(0, 2, default=0)
    backbone_lr_ratio = Float(0.02, 0.5, log=True, when={"unfreeze": (1, 2)})
    # With one stage unfrozen there is no stage below it for the rate to decay to.
    layer_decay = Float(0.4, 1.0, default=0.7, when={"unfreeze": 2})

    augmentation = Choice("none", "flip", "dihedral")
    mixup = Choice(0.0, 0.2, 0.4)
    cutmix = Choice(0.0, 1.0, when={"unfreeze": (1, 2)})
    class_weighting = Choice("none", "balanced")
    confidence_weighting = Choice(False, True)

    optimizer = Choice("adamw", "sgd")
    lr = Float(3e-4, 3e-2, log=True)
    weight_decay = Float(1e-5, 1e-1, log=True)
    label_smoothing = Float(0.0, 0.2, default=0.05)
    epochs = Integer(4, 40, log=True, default=20)
    batch_size = Choice(64, 32)
