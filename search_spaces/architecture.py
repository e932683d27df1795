"""What the network looks like, with a recipe that is known to work: the ground of architecture search."""

from __future__ import annotations

from autovision.space import Choice, Float, Integer, Space


class Architecture(Space):
    """Depth, taps, pooling, head, adapters and resolution of three small backbones.

    Run:    autovision search submit DATASET --space architecture --budget-s 900 --wait
    Costs:  pooled heads of every depth read the same features and cost little; adapters and learned pooling train
            on activations, which are stored once for each cut. Two cores will do, a GPU helps with the adapters.
            The weights come with the `demo` extra.
    Pick it to find the smallest or best network for a data set when the recipe is not the question: how much of the
            backbone is needed, what the head should look at, and how. A space of your own may inherit it and
            name other backbones: all that timm has can be cut, tapped and adapted like these.
    """

    backbone = Choice("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
    resolution = Choice(224, 160, 128)
    drop_stages = Integer(0, 4, default=0)
    taps = Integer(1, 4, default=3)
    head = Choice("linear", "mlp", "cosine", "attention")
    # The attention head pools by itself.
    pooling = Choice("avg", "avgmax", "gem", "max", "attention", when={"head": ("linear", "mlp", "cosine")})
    head_width = Integer(64, 512, log=True, when={"head": ("mlp", "attention")})
    adapters = Integer(0, 3, default=0)
    adapter_width = Integer(4, 64, log=True, default=16, when={"adapters": (1, 2, 3)})
    dropout = Float(0.0, 0.5, default=0.2)
    unfreeze = 0

    augmentation = Choice("flip", "dihedral", "none")
    mixup = 0.2
    optimizer = "adamw"
    lr = Float(3e-4, 1e-2, log=True)
    weight_decay = 1e-2
    label_smoothing = 0.05
    epochs = Integer(5, 40, log=True, default=15)
    batch_size = 64
