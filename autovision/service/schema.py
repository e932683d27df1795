"""What travels between the API service and its clients. Field names and forms are a contract with callers."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from autovision.records.base import Record
from autovision.records.datasets import DatasetVersion
from autovision.records.runtimes import EVALUATED
from autovision.records.searches import PriceTable, SearchRequest, SearchState
from autovision.records.tokens import Scope, Token
from autovision.serving.schema import Problem

PREFIX = "/api/v1"
IDEMPOTENCY_HEADER = "Idempotency-Key"
MOST_BUDGET_S = 30 * 86_400.0
"""a month"""

T = TypeVar("T")

Seconds = Annotated[float, Field(gt=0, le=MOST_BUDGET_S, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ShortName = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9_]+$")]
"""of what the service has itself: nothing with a colon, which would name code to import"""
Text = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """What a client sends. Unknown keys are refused, and no value is taken for one of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SearchDeclaration(Body):
    """A search: what is to be searched for, and within which bounds. Data, never code."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"dataset": "pets", "space": "quick", "budget_s": 600},
                {
                    "dataset": "pets@3",
                    "budget_s": 3600,
                    "metric": "macro_f1",
                    "max_latency_ms": 20,
                    "space": {
                        "format": 1,
                        "name": "Small",
                        "parameters": {
                            "backbone": {"kind": "choice", "values": ["resnet18", "tf_efficientnet_lite0"]},
                            "lr": {"kind": "float", "low": 0.0001, "high": 0.01, "log": True},
                        },
                    },
                },
            ]
        }
    )

    dataset: Text = Field(description="A data set, or NAME@V for a version of it.")
    space: ShortName | dict[str, Any] = Field(
        default="quick",
        description="The name of a shipped search space, or a space in its JSON form. Import paths are refused.",
    )
    budget_s: Seconds = Field(default=120.0, description="Wall seconds that the search may use.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    metric: Text | None = Field(
        default=None,
        description="What trials are ranked by; without it accuracy, or the costs if there are any.",
    )
    costs: dict[str, dict[str, Annotated[float, Field(allow_inf_nan=False)]]] | None = Field(
        default=None, description="True class -> answered class -> what that answer costs."
    )
    scheduler: ShortName = "halving"
    sampler: ShortName = "tpe"
    objectives: Annotated[list[ShortName], Field(max_length=8)] = []
    max_trials: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    workers_per_trial: Annotated[int, Field(ge=1, le=10_000)] = 1
    max_latency_ms: Positive | None = None
    max_memory_mb: Positive | None = None
    max_size_mb: Positive | None = None
    runtime: Text = Field(
        default=EVALUATED, description="That latency and memory are measured on, such as openvino-f32."
    )
    patience_s: Positive | None = None
    converged: bool = False
    max_cost: Positive | None = None
    prices: PriceTable | None = None
    priority: Annotated[int, Field(ge=-10, le=10)] = 0
    deployment: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="Where the controller shall promote the model; it takes the scope promote, too.",
    )
    licenses: Annotated[list[Text], Field(max_length=32)] = []
    warm_start: bool = True
    refit: bool = True
    soup: bool = True
    confirm: bool = True
    again: bool = Field(default=False, description="A new search, even if the same one was done already.")


class Extension(Body):
    """How a search goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"budget_s": 600}, {}]})

    budget_s: Seconds | None = Field(
        default=None, description="So many more wall seconds from here, also for one that is finished."
    )
    max_trials: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="So many more trials than have ended."
    )
    max_cost: Positive | None = Field(default=None, description="So much more than it has cost.")


class PromotionOrder(Body):
    """Which model is to take over."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "pets-m-1234567890"}]})

    model: Annotated[str, Field(min_length=1, max_length=128)]
    at_once: bool = Field(
        default=False, description="Leave out the steps of the deployment's rollout policy."
    )
    force: bool = Field(
        default=False, description="Promote it whatever the gates say; it takes the scope admin, too."
    )


class Approval(Body):
    """Which of the models that wait is meant."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "pets-m-1234567890"}]})

    model: Annotated[str, Field(min_length=1, max_length=128)]


# ------------------------------------------------------------------------------------------------- answers


class Page(Record, Generic[T]):
    """A part of a list."""

    items: list[T]
    next: str | None
    """`cursor` of the part that follows; None: this is the last one"""


class DatasetView(Record):
    """A version of a data set."""

    dataset: str
    """`name@version`"""
    name: str
    version: int
    digest: str
    n: int
    classes: tuple[str, ...]
    multi_label: bool
    positive_class: str | None
    counts: dict[str, dict[str, int]]
    """split -> class -> images"""
    images: dict[str, int]
    """split -> images; empty in older records"""
    problem_counts: dict[str, int]
    created_at: AwareDatetime

    @classmethod
    def of(cls, version: DatasetVersion) -> DatasetView:
        kept = version.model_dump(include=set(cls.model_fields) - {"dataset"})
        return cls(dataset=version.id, **kept)


class Submitted(Record):
    """What became of a declaration, as it was when it was first answered."""

    search: str
    status: str
    """`queued`, unless the same search was there before"""
    dataset: str
    """`name@version`"""
    budget_s: float
    created: bool
    """whether it is a new search"""
    url: str


class SearchSummary(Record):
    """A search in a few figures."""

    search: str
    dataset: str
    status: str
    priority: int
    trials: int
    best: float | None
    spent_s: float
    budget_s: float
    cost: float | None
    currency: str | None
    model: str | None
    reason: str
    error: str | None
    seed: int
    created_at: AwareDatetime


class SearchView(Record):
    """A search: what was asked, how it stands, and who submitted it."""

    request: SearchRequest
    state: SearchState
    submitted_by: str | None
    """None: not through this service"""


class QueueEntry(Record):
    """A search that runs or waits."""

    search: str
    status: str
    position: int | None
    priority: int
    submitted_at: AwareDatetime
    workers_per_trial: int
    share: int | None
    running: int | None
    cluster: str | None
    why: str


class Progress(Record):
    """How far a search has come: the data of the events `progress` and `end`."""

    search: str
    status: str
    elapsed_s: float
    budget_s: float
    complete: int
    pruned: int
    failed: int
    late: int
    best_value: float | None
    best_config: dict[str, Any]
    model: str | None
    error: str | None


class TokenView(Record):
    """A token without its digest, which is of use to nobody but a server."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    max_searches: int | None
    max_search_s_per_day: float | None
    max_priority: int = 0

    @classmethod
    def of(cls, token: Token) -> TokenView:
        return cls(**token.model_dump(include=set(cls.model_fields)))


class Left(Record):
    """What a token may still submit; None: any."""

    searches: int | None
    """at once"""
    search_s: float | None
    """of budget, within 24 hours"""


class Me(Record):
    """Who asks, and what is left to them."""

    name: str
    token: TokenView | None
    """None: none is needed"""
    left: Left


class Fault(Record):
    """One thing that is wrong with a request."""

    where: str
    """such as `body.budget_s`"""
    message: str


class ServiceProblem(Problem):
    """An error, as RFC 9457 problem details with what helps to mend it."""

    faults: tuple[Fault, ...] = ()
    left: Left | None = None
    """of a quota that is used up"""


class ServiceHealth(Record):
    """Whether requests can be answered."""

    status: str
    """`live`, `ready` or `waiting`"""
    version: str


class Revoked(Record):
    """Tokens that are revoked from now on."""

    revoked: tuple[TokenView, ...]
