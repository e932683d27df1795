"""Models that are small and quick to serve: mobile backbones, low resolutions, cut short."""

from __future__ import annotations

from autovision.space import Choice, Float, Integer, Space


class Edge(Space):
    """Mobile backbones at low resolutions, with up to three of their last stages left out.

    Run:    autovision search submit DATASET --space edge --budget-s 600 --wait
    Costs:  little per trial, as every backbone here is made for phones; two cores will do, a GPU helps with
            the unfrozen stages. All but EfficientNet-Lite0 fetch their weights from timm's hub, once each.
    Pick it when the model is to be served on small processors, or the answer has to come fast, and some
            accuracy may be paid for that. Leaving out stages saves time and size; further taps give the head
            more to work with at hardly any cost.
    """

    backbone = Choice(
        "tf_efficientnet_lite0",
        "mobilenetv2_100",
        "mobilenetv3_small_100",
        "mobilenetv3_large_100",
        "mobilenetv4_conv_small",
    )
    resolution = Choice(160, 96, 128, 192)
    drop_stages = Integer(0, 3, default=1)
    taps = Integer(1, 3, default=2)
    pooling = Choice("avg", "gem")
    head = Choice("linear", "cosine")
    dropout = Float(0.0, 0.5, default=0.1)

    unfreeze = Integer(0, 3, default=1)
    backbone_lr_ratio = Float(0.02, 1.0, log=True, when={"unfreeze": (1, 2, 3)})
    # With one stage unfrozen there is no stage below it for the rate to decay to.
    layer_decay = Float(0.4, 1.0, default=0.7, when={"unfreeze": (2, 3)})

    augmentation = Choice("flip", "crop", "dihedral", "none")
    mixup = Choice(0.0, 0.2)
    cutmix = Choice(0.0, 1.0, when={"unfreeze": (1, 2, 3)})
    class_weighting = Choice("none", "balanced")

    optimizer = "adamw"
    lr = Float(3e-4, 3e-2, log=True)
    weight_decay = Float(1e-5, 1e-1, log=True)
    label_smoothing = Float(0.0, 0.2, default=0.05)
    epochs = Integer(5, 60, log=True, default=20)
    batch_size = Choice(64, 32)
