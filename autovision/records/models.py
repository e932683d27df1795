"""Models: weights, figures, decision rules, and where all of it came from."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AwareDatetime, model_validator

from autovision.records.base import Record
from autovision.records.datasets import Split
from autovision.records.searches import Costs


class ImportedWeights(Record):
    """Pretrained weights that a user brought in, for one backbone; the record reveals their file."""

    name: str
    """`TrialConfig.weights` speaks of them as `store:<name>`"""
    backbone: str
    """the timm model that they fit"""
    digest: str
    """SHA-256 of the safetensors file, in hex"""
    license: str
    """SPDX identifier, or `unknown`"""
    source: str
    """where they came from, in words"""
    size_bytes: int
    created_at: AwareDatetime


class Interval(Record):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Evaluation(Record):
    """How a model does on a set of labelled images."""

    dataset: str
    """`name@version`"""
    split: Split
    where: dict[str, str] = {}
    """metadata that the images have in common, e.g. {"cell_type": "poly"}; empty: all of the split"""
    n: int
    accuracy: Interval
    """share of images whose class, or whose every label, is answered right"""
    balanced_accuracy: Interval
    f1: Interval
    """of the positive class for two classes, macro-averaged otherwise"""
    auroc: Interval | None
    """two classes: of the positive class; more, or several labels: macro one-against-rest; None where a class is
    absent"""
    average_precision: float | None = None
    """like `auroc`; the mean average precision where it is macro-averaged"""
    log_loss: float
    ece: float
    """expected calibration error, 15 equal-width bins"""
    majority_accuracy: float
    """accuracy of always answering this set's most frequent class, or set of labels"""
    per_class_recall: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    """rows: true class, columns: predicted class, in the order of the model's classes; empty for several labels"""
    bootstrap: dict[str, Interval] = {}
    """every figure by its metric's name (`log_loss` and `ece` are the lower the better), and the metric that the search
    was ranked by, with percentiles of resampled images, or groups of them; of a recall at a precision that of the
    served threshold, with its `precision`, if the model has one; empty in older records"""
    resamples: int = 0
    """of `bootstrap`"""


CropMode = Literal["center", "squash"]
"""the shorter side is scaled and the centre cropped; both sides are scaled, whatever their ratio"""


class Preprocessing(Record):
    """How decoded RGB pixels become the model's input; the same in training and in serving."""

    height: int
    width: int
    crop_pct: float
    crop_mode: CropMode = "center"
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class DecisionRule(Record):
    """How calibrated probabilities become an answer; `autovision.decisions` applies it.

    The default is the most probable class, or, of any number of classes, those above one half.
    """

    kind: Literal["default", "threshold", "offsets", "costs", "thresholds"] = "default"
    """`threshold`: of two classes the one of `column` where its probability is above the value; `offsets`: the largest
    log-probability plus value; `costs`: the least expected cost; `thresholds`: each label above its value"""
    values: tuple[float, ...] = ()
    """one of a `threshold`; one for each class of `offsets` and `thresholds`"""
    column: int | None = None
    """the class of a `threshold`"""
    costs: tuple[tuple[float, ...], ...] = ()
    """rows: true class, columns: answered class"""
    why: str = ""
    """what spoke for it, or against another one, on validation"""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        odd = {
            "threshold": len(self.values) != 1 or self.column not in (0, 1),
            "offsets": len(self.values) < 2,
            "thresholds": not self.values,
            "costs": not self.costs or any(len(row) != len(self.costs) for row in self.costs),
        }
        if odd.get(self.kind, False):
            raise ValueError(f"a decision rule of kind {self.kind!r} lacks its values")
        if self.kind.startswith("threshold") and not all(0 < value < 1 for value in self.values):
            raise ValueError(f"thresholds lie between 0 and 1, not {self.values}")
        return self


class Refit(Record):
    """A second training of what was chosen, on train and validation together."""

    images: int
    """of both splits"""
    epochs: dict[str, int]
    """trial -> epochs, those after which its weights were what validation judged"""
    before_key: str
    """weights of before, which have not seen validation: what starts from this model must start from these"""


class Confirmation(Record):
    """A trial that was judged once more, on train and validation together, when its search was finished."""

    trial: str
    value: float
    """on validation, by which trials are ranked"""
    confirmed: float
    """the same of all images: of train by cross-validation"""
    expected: float | None = None
    """of these, less what is lost if the gates refuse it; None: there was no champion to compare it with"""
    chance: float | None = None
    """of the gates not to refuse it for a loss, by images whose classes the champion knows"""
    at_risk: str = ""
    """what one gate looks at, where the chance is the lowest, and what was seen there"""


Candidate = Literal["trained", "from_champion", "recalibrated", "unchanged"]
"""what may become a search's model: a trial that began anew; one that began from the champion's weights; the champion
itself with another temperature, a shift for each class and another decision rule; the champion as it is"""


class Candidacy(Record):
    """What a candidate came to on validation, judged as it would serve."""

    candidate: Candidate
    value: float
    """of the kind that trials are ranked by; what is fitted to validation was fitted to other parts of it"""
    expected: float | None = None
    """the same, less what is lost if the gates refuse it; None: written before that was looked at"""
    chance: float | None = None
    """of the gates not to refuse it for a loss, by images of validation whose classes the champion knows"""
    at_risk: str = ""
    """what one gate looks at, where the chance is the lowest, and what was seen there"""


class FinishRecord(Record):
    """What the finish of a search made of its ledger: written once, so that it is the same however often it runs."""

    search: str
    ledger: str
    """digest of the trials, their values and weights"""
    trials: tuple[str, ...]
    """the best trial; or, the best first, those whose weights are averaged"""
    chosen_key: str
    """weights as validation chose them: temperature and decision rule are fitted to these"""
    final_key: str
    """weights of the model: those, or trained again"""
    refit: Refit | None = None
    confirmed: tuple[Confirmation, ...] = ()
    """trials that were judged once more, the best first"""
    candidate: Candidate = "trained"
    """what became the model; where that is the champion, `trials` are the best that it was preferred to"""
    candidates: tuple[Candidacy, ...] = ()
    """the best of the trials and the champion, the best first; empty: there was no champion to compare with"""
    notes: tuple[str, ...] = ()
    created_at: AwareDatetime


class Lineage(Record):
    """Everything a model version came from."""

    search: str
    trial: str
    """`recalibrated`, `shares`, `batchnorm`: none; the weights are the parent's, with other biases or statistics"""
    dataset: str
    """`name@version`"""
    dataset_digest: str
    backbone: str
    backbone_weights_digest: str
    backbone_weights_source: str
    backbone_weights_license: str
    space_fingerprint: str
    config: dict[str, Any]
    """the resolved TrialConfig"""
    seed: int
    code_version: str
    """package version, and a digest of its source"""
    packages: dict[str, str]
    parents: tuple[str, ...]
    """model versions that training started from or was compared with"""
    soup: tuple[str, ...] = ()
    """trials whose weights are averaged (Wortsman et al. 2022), `trial` first; empty: those of `trial` alone"""
    refit: Refit | None = None
    """None: the weights are those that were chosen on validation"""
    notes: tuple[str, ...] = ()
    """how the finish went about soup and refit"""


class ModelVersion(Record):
    """An immutable model: the record is written last and reveals the files beside it."""

    id: str
    dataset: str
    """name of the data set, without version"""
    classes: tuple[str, ...]
    multi_label: bool = False
    """whether it answers any number of its classes; otherwise it answers exactly one"""
    positive_class: str | None
    preprocessing: Preprocessing
    temperature: float
    """logits are divided by it (Guo et al. 2017), fitted on validation"""
    decision: DecisionRule = DecisionRule()
    metric: str = "accuracy"
    """what its search was ranked by, and its decision rule was chosen for"""
    costs: Costs | None = None
    """of answers, for the metric `neg_mean_cost`"""
    precision: str
    """numeric precision that it was evaluated in: `f32` or `bf16`; a server may use another runtime, if that agrees on
    real images (`autovision.registry.runtimes`)"""
    metrics: dict[str, Evaluation]
    """`test`, and one per declared subgroup"""
    files: dict[str, str]
    """file name -> SHA-256 in hex"""
    size_bytes: int
    parameters: int
    shares: dict[str, float] = {}
    """class -> the share that its probabilities assume, where that was estimated without labels; empty: the one that it
    has in validation"""
    renormalized: bool = False
    """its BatchNorm statistics are those of unlabelled requests; what it learnt is its parent's, with that one's"""
    lineage: Lineage
    created_at: AwareDatetime
