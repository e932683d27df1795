"""A connection to S3: boto3's client as the standard AWS chain sets it up, and requests that are sent again."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from autovision.errors import StoreUnavailable
from autovision.store.s3.location import S3Location
from autovision.store.s3.patience import Patience

T = TypeVar("T")

CONNECTIONS = 32
"""open at once, at most, by one process"""
_SMALL_BYTES = 1 << 20
"""bodies up to this are sent without asking first whether they will be taken, which costs a round trip"""


class Missing(Exception):
    """There is no such object."""


class Precondition(Exception):
    """The condition of a request does not hold."""


class Connection:
    """Requests to one location. Thread-safe; a forked process gets sockets of its own."""

    def __init__(self, location: S3Location, patience: Patience) -> None:
        self.location = location
        self.patience = patience
        self._lock = threading.Lock()
        self._made: tuple[int, Any] | None = None
        self._answered = False

    @property
    def client(self) -> Any:
        """boto3's client of this process."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._make()
            return self._made[1]

    @property
    def endpoint(self) -> str:
        return str(self.client.meta.endpoint_url)

    @property
    def is_amazon(self) -> bool:
        """Whether requests go to Amazon's own service."""
        return _is_amazon(self.endpoint)

    def call(self, action: str, request: Callable[[Any], T]) -> T:
        """Carry out a request that may be repeated: `request` gets the client, and asks once.

        Raises `Missing` and `Precondition` for the caller to judge, and `StoreUnavailable` that says what could not be
        done (`action`, such as `read 'a/b'`), why, and the remedy.
        """
        from autovision.store.s3.faults import Failure, Kind, fault_of

        fault = None
        for _ in self.tries():
            try:
                result = request(self.client)
            except Failure as error:
                fault = fault_of(error)
                self.note(answered=fault.answered)
                match fault.kind:
                    case Kind.MISSING:
                        raise Missing from error
                    case Kind.PRECONDITION:
                        raise Precondition from error
                    case Kind.FATAL:
                        self.give_up(action, fault, error)
            else:
                self.note(answered=True)
                return result
        assert fault is not None
        self.give_up(action, fault)

    def ask(self, action: str, method: str, **arguments: Any) -> Any:
        """What a method of the client answers about the bucket. Raises like `call`."""
        bucket = self.location.bucket
        return self.call(action, lambda client: getattr(client, method)(Bucket=bucket, **arguments))

    def tries(self) -> Any:
        """Numbers of tries with pauses between them; fewer while nothing has ever answered."""
        patience = self.patience
        return patience.tries(lambda: patience.deadline_s if self._answered else patience.unreachable_s)

    def note(self, *, answered: bool) -> None:
        self._answered |= answered

    def give_up(
        self, action: str, fault: Any, cause: BaseException | None = None, *, doubt: str = ""
    ) -> NoReturn:
        """Raise `StoreUnavailable` that tells the fault, where it was, and the remedy."""
        where = self.location.uri
        if self._made is not None and not _is_amazon(endpoint := self.endpoint):
            from autovision.store.s3.faults import scrubbed

            where += f" at {scrubbed(endpoint)}"
        raise StoreUnavailable(
            f"cannot {action} in the store {where}: {fault.text}{doubt}; {fault.remedy}"
        ) from cause

    def _make(self) -> Any:
        from autovision.store.s3.faults import Failure, fault_of

        try:
            return _client(self.location, self.patience)
        except Failure as error:
            self.give_up("open a connection", fault_of(error), error)
        except ValueError as error:  # botocore's word for an address that is none
            raise StoreUnavailable(
                f"cannot open the store {self.location.uri}: {error}; correct AWS_ENDPOINT_URL or ?endpoint=…"
            ) from error


def _client(location: S3Location, patience: Patience) -> Any:
    import boto3
    from botocore.config import Config

    def make(style: str | None) -> Any:
        config = Config(
            # Requests are sent again here, where it is known what a lost answer means for each.
            retries={"total_max_attempts": 1},
            connect_timeout=patience.connect_s,
            read_timeout=patience.read_s,
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            user_agent_extra="autovision",
            s3={"addressing_style": style} if style else None,
        )
        session = boto3.Session(botocore_session=_core(), region_name=location.region)
        return session.client("s3", endpoint_url=location.endpoint, config=config)

    configured = (_core().get_scoped_config().get("s3") or {}).get("addressing_style")
    style = location.addressing or configured
    client = make(style or ("path" if location.endpoint else None))
    if style is None and location.endpoint is None and not _is_amazon(client.meta.endpoint_url):
        client = make("path")  # servers of one's own seldom have a name for each bucket
    client.meta.events.register_last("before-call.s3.PutObject", _send_small_at_once)
    return client


def _core() -> Any:
    """A session of botocore, which looks at the environment and the profiles anew."""
    from botocore.session import Session

    core = Session()
    # The service's description takes most of the time to open a connection, and is always the same.
    core.register_component("data_loader", _loader())
    return core


@cache
def _loader() -> Any:
    from botocore.session import Session

    return Session().get_component("data_loader")


def _is_amazon(endpoint: str) -> bool:
    return (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _send_small_at_once(params: Any, **_: Any) -> None:
    body = params.get("body")
    if isinstance(body, io.BytesIO) and body.getbuffer().nbytes <= _SMALL_BYTES:
        params["headers"].pop("Expect", None)
