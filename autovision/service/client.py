"""Asking the API service: no more than httpx and pydantic, so that it runs where nothing else is installed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from autovision.errors import AutoVisionError, Conflict, InvalidInput, NotFound
from autovision.records.deployments import Decision, Deployment
from autovision.records.models import ModelVersion
from autovision.records.searches import SearchState
from autovision.records.trials import TrialResult
from autovision.service.schema import (
    IDEMPOTENCY_HEADER,
    PREFIX,
    DatasetView,
    Me,
    Progress,
    QueueEntry,
    SearchDeclaration,
    SearchSummary,
    SearchView,
    Submitted,
)
from autovision.serving.client import NotAllowed, is_loopback

TOKEN_VARIABLE = "AUTOVISION_TOKEN"

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_ACT_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
"""a promotion compares two models"""
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""the service says that it is still there every 15 s"""
_RETRIES = 4
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_PAGE = 200

M = TypeVar("M", bound=BaseModel)


class ServiceUnavailable(AutoVisionError):
    """The API service cannot be reached; check the address, and that `autovision service run` is up there."""

    exit_code = 7


class QuotaExceeded(AutoVisionError):
    """The token's quota is used up; try again later."""


def token_of(file: Path | None) -> str | None:
    """The token in a file, or else in `AUTOVISION_TOKEN`; never on a command line, which others can see."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidInput(f"--token-file {str(file)!r} cannot be read: {why}; check the path") from None
    if not token or not token.isascii() or len(token.split()) != 1:
        raise InvalidInput(
            f"--token-file {str(file)!r} holds no token; put the line into it that `autovision token create` printed"
        )
    return token


class ServiceClient:
    """A client of one service; a context manager. What fails for the moment is sent again, acts under one key.

    Args:
        address: `https://host:port`; without a path.
        token: None: none is sent.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = _checked(address)
        host = urlsplit(self.address).hostname or ""
        self.exposed = token is not None and self.address.startswith("http:") and not is_loopback(host)
        """whether the token can be read on its way"""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=self.address,
            headers=headers,
            timeout=_TIMEOUT,
            # A proxy from the environment cannot reach this machine's own loopback.
            trust_env=not is_loopback(host),
        )

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # ------------------------------------------------------------------------------------------ searches

    def submit(self, declared: SearchDeclaration, *, key: str | None = None) -> Submitted:
        """Put a search into the queue, once however often it has to be sent."""
        body = declared.model_dump(mode="json", exclude_defaults=True)
        return self._act("/searches", body, Submitted, key)

    def searches(self) -> list[SearchSummary]:
        """All of them, oldest first."""
        return self._all("/searches", SearchSummary)

    def queue(self) -> list[QueueEntry]:
        """Searches that run or wait."""
        found = self._json(self._get("/queue"))
        return (
            [self._made(QueueEntry, each) for each in found] if isinstance(found, list) else self._no_answer()
        )

    def search(self, search: str) -> SearchView:
        return self._one(f"/searches/{_part(search)}", SearchView)

    def trials(self, search: str) -> list[TrialResult]:
        """All trials that have ended, in the order in which they were begun."""
        return self._all(f"/searches/{_part(search)}/trials", TrialResult)

    def explain(self, search: str) -> dict[str, Any]:
        """Why it ended as it did, as data."""
        found = self._json(self._get(f"/searches/{_part(search)}/explanation"))
        return found if isinstance(found, dict) else self._no_answer()

    def stop(self, search: str) -> SearchState:
        return self._act(f"/searches/{_part(search)}/stop", None, SearchState)

    def resume(self, search: str, budget_s: float | None = None, **more: float | None) -> SearchState:
        """Put a search into the queue again, with so many seconds more.

        Args:
            more: other fields of an `Extension`.
        """
        body = {name: value for name, value in {"budget_s": budget_s, **more}.items() if value is not None}
        return self._act(f"/searches/{_part(search)}/resume", body, SearchState)

    def follow(self, search: str) -> Iterator[Progress | TrialResult]:
        """What a search tells, until nobody works on it any more: the last one is its end.

        A stream that breaks off is taken up again behind the last event.
        """
        last: str | None = None
        failures = 0
        while True:
            try:
                for kind, event_id, data in self._events(search, last):
                    last, failures = event_id, 0
                    if kind == "trial":
                        yield self._made(TrialResult, self._json(data))
                    elif kind in ("progress", "end"):
                        yield self._made(Progress, self._json(data))
                        if kind == "end":
                            return
            except (ServiceUnavailable, httpx.TransportError) as error:
                failures += 1
                if failures > _RETRIES:
                    raise self._unreachable(error) from error
            time.sleep(min(_PAUSE_S * 2.0**failures, _LONGEST_PAUSE_S))

    def _events(self, search: str, last: str | None) -> Iterator[tuple[str, str, str]]:
        headers = {"accept": "text/event-stream"} | ({} if last is None else {"last-event-id": last})
        path = f"{PREFIX}/searches/{_part(search)}/events"
        with self._http.stream("GET", path, headers=headers, timeout=_STREAM_TIMEOUT) as response:
            if response.status_code != 200:
                response.read()
                raise _error_of(response)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                self._no_answer()
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if not line:
                    if "data" in fields:
                        yield fields.get("event", ""), fields.get("id", ""), fields["data"]
                    fields = {}
                    continue
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")

    # -------------------------------------------------------------------------- data sets, models, deployments

    def datasets(self) -> list[DatasetView]:
        return self._all("/datasets", DatasetView)

    def models(self) -> list[ModelVersion]:
        return self._all("/models", ModelVersion)

    def model(self, model: str) -> ModelVersion:
        return self._one(f"/models/{_part(model)}", ModelVersion)

    def deployment(self, name: str) -> Deployment:
        return self._one(f"/deployments/{_part(name)}", Deployment)

    def decisions(self, name: str) -> list[Decision]:
        return self._all(f"/deployments/{_part(name)}/decisions", Decision)

    def promote(self, model: str, to: str, *, force: bool = False, at_once: bool = False) -> Decision:
        body = {"model": model, "force": force, "at_once": at_once}
        return self._act(f"/deployments/{_part(to)}/promote", body, Decision)

    def roll_back(self, name: str) -> Decision:
        return self._act(f"/deployments/{_part(name)}/rollback", None, Decision)

    def approve(self, name: str, model: str) -> Decision:
        return self._act(f"/deployments/{_part(name)}/approve", {"model": model}, Decision)

    def reject(self, name: str, model: str) -> Decision:
        return self._act(f"/deployments/{_part(name)}/reject", {"model": model}, Decision)

    def me(self) -> Me:
        """Who the service takes this client for, and what is left of its quotas."""
        return self._one("/me", Me)

    # ------------------------------------------------------------------------------------------- requests

    def _one(self, path: str, type_: type[M]) -> M:
        return self._read(self._get(path), type_)

    def _all(self, path: str, type_: type[M]) -> list[M]:
        found: list[M] = []
        cursor: str | None = None
        while True:
            params = {"limit": str(_PAGE)} | ({} if cursor is None else {"cursor": cursor})
            part = self._json(self._get(path, params))
            if not isinstance(part, dict) or not isinstance(part.get("items"), list):
                self._no_answer()
            found += [self._made(type_, item) for item in part["items"]]
            following = part.get("next")
            if following is None:
                return found
            if following == cursor:  # the same part for ever
                self._no_answer()
            cursor = following

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        return self._send("GET", path, params=params).content

    def _act(self, path: str, body: Any, type_: type[M], key: str | None = None) -> M:
        headers = {IDEMPOTENCY_HEADER: key or os.urandom(16).hex()}
        return self._read(self._send("POST", path, body=body, headers=headers).content, type_)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer that is a success. Raises what its problem says."""
        for attempt in range(_RETRIES + 1):
            last = attempt == _RETRIES
            try:
                response = self._http.request(
                    method,
                    PREFIX + path,
                    params=params,
                    json=body,
                    headers=headers,
                    timeout=_ACT_TIMEOUT if method == "POST" else _TIMEOUT,
                )
            except httpx.TransportError as error:
                if last:
                    raise self._unreachable(error) from error
                time.sleep(_PAUSE_S * 2.0**attempt)
                continue
            if response.status_code != 503 or last:
                break
            time.sleep(_pause_of(response, _PAUSE_S * 2.0**attempt))
        if response.is_success:
            return response
        raise _error_of(response)

    def _read(self, data: bytes, type_: type[M]) -> M:
        return self._made(type_, self._json(data))

    def _json(self, data: bytes | str) -> Any:
        try:
            return json.loads(data)
        except ValueError:
            self._no_answer()

    def _no_answer(self) -> NoReturn:
        raise ServiceUnavailable(
            f"what {self.address} answered is none of the API's answers; check the address, and that no proxy or "
            "login page is between"
        )

    def _made(self, type_: type[M], value: Any) -> M:
        try:
            return type_.model_validate(value)
        except ValidationError as error:
            raise ServiceUnavailable(
                f"what {self.address} answered is no {type_.__name__} of this version; install the version of "
                f"AutoVision that runs there ({error.error_count()} faults)"
            ) from None

    def _unreachable(self, error: Exception) -> ServiceUnavailable:
        if isinstance(error, ServiceUnavailable):
            return error
        return ServiceUnavailable(
            f"the API service at {self.address} cannot be reached ({type(error).__name__}: {error}); check the "
            "address, and that `autovision service run` is up there"
        )


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise InvalidInput(f"--address {address!r} is no URL; give https://HOST:PORT") from None
    if parts.username or parts.password:
        raise InvalidInput(
            "--address holds a password; give https://HOST:PORT, and a token with --token-file or AUTOVISION_TOKEN"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise InvalidInput(f"--address {address!r} is no URL of a service; give https://HOST:PORT")
    if parts.path.strip("/") not in ("", PREFIX.strip("/")) or parts.query or parts.fragment:
        raise InvalidInput(f"--address {address!r} has a path; give https://HOST:PORT alone")
    return f"{parts.scheme}://{parts.netloc}"


def _part(name: str) -> str:
    """A name as one segment of a path, whatever it holds."""
    if name in ("", ".", ".."):
        raise InvalidInput(f"{name!r} is no name; use an id or a name that the `list` command shows")
    return quote(name, safe="")


def _pause_of(response: httpx.Response, otherwise_s: float) -> float:
    said = response.headers.get("retry-after", "")
    return min(float(said), _LONGEST_PAUSE_S) if said.isdigit() else otherwise_s


def _error_of(response: httpx.Response) -> AutoVisionError:
    """The exception for an answer that is no success."""
    detail = response.text[:300]
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        with suppress(ValueError, AttributeError):
            detail = str(response.json().get("detail", detail))
    status = response.status_code
    message = f"{detail} (HTTP {status} from {response.request.url.host})"
    match status:
        case 401 | 403:
            return NotAllowed(message)
        case 404:
            return NotFound(message)
        case 409:
            return Conflict(message)
        case 429:
            later = response.headers.get("retry-after")
            return QuotaExceeded(message + (f"; try again in {later} s" if later else ""))
    return InvalidInput(message) if 400 <= status < 500 and status != 408 else ServiceUnavailable(message)
