"""The families that transfer well, fine-tuned as deep as it pays: for a GPU."""

from __future__ import annotations

from autovision.space import Choice, Float, Integer, Space

_CONVOLUTIONAL = ("resnet18", "resnet50", "efficientnet_b0", "convnext_tiny")


class Standard(Space):
    """ResNet, EfficientNet, ConvNeXt and ViT, from heads alone to the last four stages.

    Run:    autovision search submit DATASET --space standard --budget-s 3600 --wait
    Costs:  made for one or more GPUs and an hour or so; without a GPU the larger backbones eat the budget.
            The weights are fetched from timm's hub, once each.
    Pick it when accuracy counts for more than the size of the served model, and for thousands of images and
            more; begin with `quick` to have something to compare with.
    """

    backbone = Choice("resnet18", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224")
    # A ViT takes the size that it was trained with, and no other.
    resolution = Choice(224, 288, 384, when={"backbone": _CONVOLUTIONAL})
    drop_stages = Integer(0, 1, default=0)
    taps = Integer(1, 3, default=1)
    pooling = Choice("avg", "avgmax", "gem")
    head = Choice("linear", "mlp", "cosine")
    head_width = Integer(128, 1024, log=True, when={"head": "mlp"})
    dropout = Float(0.0, 0.5, default=0.2)

    unfreeze = Integer(0, 4, default=1)
    backbone_lr_ratio = Float(0.01, 1.0, log=True, when={"unfreeze": (1, 2, 3, 4)})
    # With one stage unfrozen there is no stage below it for the rate to decay to.
    layer_decay = Float(0.4, 1.0, default=0.7, when={"unfreeze": (2, 3, 4)})
    unfreeze_schedule = Choice("at_once", "gradual", when={"unfreeze": (2, 3, 4)})
    l2_sp = Choice(0.0, 1e-3, 1e-2, when={"unfreeze": (1, 2, 3, 4)})
    drop_path = Choice(0.0, 0.1, 0.2, when={"unfreeze": (1, 2, 3, 4)})

    augmentation = Choice("flip", "crop", "dihedral", "trivialaugment", "randaugment", "none")
    views = Choice(8, 4, when={"augmentation": ("trivialaugment", "randaugment")})
    magnitude = Integer(5, 15, default=9, when={"augmentation": "randaugment"})
    # An answer that is the mean over two views takes twice the arithmetic.
    test_time_augmentation = Choice("none", "flip")
    mixup = Choice(0.0, 0.2, 0.8)
    # CutMix pastes into maps; the tokens of a ViT are none.
    cutmix = Choice(0.0, 1.0, when={"unfreeze": (1, 2, 3, 4), "backbone": _CONVOLUTIONAL})
    class_weighting = Choice("none", "balanced")
    logit_adjustment = Choice(0.0, 0.5, 1.0)
    loss = Choice("cross_entropy", "focal")
    focal_gamma = Float(0.5, 4.0, default=2.0, when={"loss": "focal"})

    optimizer = Choice("adamw", "sgd")
    lr = Float(1e-4, 3e-2, log=True)
    weight_decay = Float(1e-5, 1e-1, log=True)
    label_smoothing = Float(0.0, 0.2, default=0.1)
    ema = Choice(0.0, 0.99, 0.998)
    epochs = Integer(5, 60, log=True, default=20)
    batch_size = Choice(64, 32, 128)
