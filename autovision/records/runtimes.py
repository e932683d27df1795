"""What is known of the runtimes that can serve a model: how fast they are, how close to PyTorch, what int8 is worth."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import AwareDatetime, Field

from autovision.errors import InvalidInput, near
from autovision.records.base import Record
from autovision.records.datasets import Split
from autovision.records.models import DecisionRule, Interval, Preprocessing

Runtime = Literal[
    "openvino-f32", "openvino-bf16", "openvino-int8", "onnx-f32", "eager-f32", "torch-f32", "torch-bf16"
]
"""engine and numeric precision; `torch` is torch.compile on a GPU"""


RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
AUTO, EVALUATED = "auto", "evaluated"
"""instead of a runtime's name: the fastest that agrees with PyTorch; the one that the model was evaluated with"""


def named(name: str) -> Runtime:
    """`name`, if it is a runtime. Raises `InvalidInput`."""
    if name not in RUNTIMES:
        known = (AUTO, EVALUATED, *RUNTIMES)
        raise InvalidInput(f"no runtime {name!r}; use one of {', '.join(known)}{near(name, known)}")
    return name


def check_choice(name: str) -> None:
    """Raises `InvalidInput` for what is neither a runtime nor stands for one."""
    if name not in (AUTO, EVALUATED):
        named(name)


class Bound(Record):
    """How far from PyTorch a runtime may be."""

    max_difference: float
    """of any probability"""
    agreement: float
    """share of images that must get the same answer"""
    embedding_shift: float = 0.1
    """of the mean embedding, in typical distances between two images: what a drift monitor would see"""


class Parity(Record):
    """A runtime's answers against those of eager PyTorch in float32, on real images of the model's data set."""

    dataset: str
    """`name@version`"""
    split: Split
    images: int
    max_difference: float
    """the largest of any probability"""
    agreement: float
    """share of images with the same answer"""
    embedding_shift: float | None = None
    """see `Bound`; None: embeddings were not compared"""
    bound: Bound

    @property
    def within(self) -> bool:
        """Whether the runtime is as close as its bound says."""
        shift = self.embedding_shift or 0.0
        return (
            self.max_difference <= self.bound.max_difference
            and self.agreement >= self.bound.agreement
            and shift <= self.bound.embedding_shift
        )

    def __str__(self) -> str:
        shift = "" if self.embedding_shift is None else f", mean embedding off by {self.embedding_shift:.3f}"
        return (
            f"the same answer for {self.agreement:.1%} of {self.images} images, probabilities off by up to "
            f"{self.max_difference:.2g}{shift}"
        )


class RuntimeParity(Record):
    """A comparison that was made once for a model on a kind of node."""

    model: str
    runtime: Runtime
    node: str
    parity: Parity
    created_at: AwareDatetime


class Timing(Record):
    """What a runtime takes, decoding not included: medians."""

    one_ms: float = Field(gt=0)
    """of one image by itself"""
    batch_ms: float = Field(gt=0)
    """of `TIMED_BATCH` images together"""


TIMED_BATCH = 16


class RuntimeSpeeds(Record):
    """How fast the runtimes are for one structure of network on one kind of node."""

    node: str
    structure: str
    """digest of the network's layers and the images' size; weights do not matter"""
    timings: dict[str, Timing]
    """runtime -> what it takes; measured in turn, in one process"""
    failed: dict[str, str] = {}
    """runtime -> why it cannot run this network"""
    created_at: AwareDatetime


class LaneTimings(Record):
    """What a network takes for each image at least, decoding not included, in milliseconds."""

    lanes: int = Field(gt=0)
    """calls at once, each by one thread"""
    wide_ms: float = Field(gt=0)
    """an image that is alone, by all threads"""
    one_ms: float = Field(gt=0)
    """an image that is alone, by one thread"""
    lane_ms: dict[int, float]
    """images of a call -> what each takes while all lanes compute such calls: the time divided by all their images"""
    batch_ms: float = Field(gt=0)
    """each of `TIMED_BATCH` images that all threads compute together"""


class LaneSpeeds(Record):
    """How fast lanes are for one structure of network on a runtime and a kind of node."""

    node: str
    structure: str
    """as in `RuntimeSpeeds`"""
    runtime: Runtime
    timings: LaneTimings
    created_at: AwareDatetime


class Lanes(Record):
    """How images are answered in lanes."""

    number: int = Field(gt=1)
    """calls at once"""
    few: int = Field(gt=0)
    """images of a call at most, unless so many wait that each lane has `most`"""
    most: int = Field(default=0, ge=0)
    """images of a call then; 0: as few"""
    wide: bool
    """whether all threads compute an image that is alone"""


class Check(Record):
    """One condition of int8."""

    name: str
    passed: bool
    reason: str
    """a clause with numbers"""


class Quantized(Record):
    """A model in int8, and whether it may serve on a kind of node: by accuracy, speed and size."""

    model: str
    node: str
    files: dict[str, str]
    """file name -> SHA-256 in hex, beside the model's own files"""
    calibrated_on: int
    """images of the train split"""
    dataset: str
    """`name@version`"""
    split: Split
    """that accuracy was compared on"""
    images: int
    accuracy: float
    accuracy_before: float
    """of the runtime that serves otherwise"""
    accuracy_change: Interval
    """paired, int8 minus before; the interval is the two-sided one of 90 %, whose lower end the check looks at"""
    compared_with: Runtime
    """the fastest other runtime"""
    timing: Timing
    timing_before: Timing
    speedup: float
    """geometric mean over one image and a batch"""
    size_bytes: int
    """of the network's files"""
    size_bytes_before: int
    """the same in float32"""
    parity: Parity
    """with eager PyTorch"""
    checks: tuple[Check, ...]
    created_at: AwareDatetime

    @property
    def accepted(self) -> bool:
        """Whether it may serve."""
        return all(check.passed for check in self.checks)


ExportFormat = Literal["onnx", "openvino", "pytorch"]


class ExportManifest(Record):
    """What an exported model is: everything but the network's program and weights, which lie beside it."""

    format: ExportFormat
    model: str
    """id of the model version"""
    classes: tuple[str, ...]
    multi_label: bool
    positive_class: str | None
    preprocessing: Preprocessing
    """mean and deviation are inside of the network, which takes uint8 pixels (B, height, width, 3)"""
    temperature: float
    """logits are divided by it"""
    decision: DecisionRule
    outputs: tuple[str, ...] = ("logits", "embedding")
    precision: str = "f32"
    """of the weights, and of the arithmetic that was compared"""
    evaluated_precision: str
    """in which the model's own figures were measured"""
    architecture: dict[str, Any]
    """the resolved configuration that the network was built from"""
    dataset: str
    dataset_digest: str
    weights_license: str
    """of the pretrained weights that training started from"""
    code_version: str
    packages: dict[str, str]
    """what the loader needs, in the versions that it was tried with"""
    files: dict[str, str]
    """file name -> SHA-256 in hex, of every other file of the folder"""
    parity: Parity | None
    """of the stand-alone loader; None only while it is being compared"""
    created_at: AwareDatetime
