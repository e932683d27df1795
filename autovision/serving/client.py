"""A small client of the HTTP routes, for the command line, for notebooks and for the demo."""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Self

import httpx

from autovision.errors import AutoVisionError, ImageTooLarge, InvalidImage, InvalidInput
from autovision.records.datasets import Labels
from autovision.serving.schema import Answer, FeedbackReceipt, Health, Problem, ServerInfo


class ServerUnavailable(AutoVisionError):
    """The server cannot be reached or is not ready; check its URL, and that `autovision serve` runs."""

    exit_code = 7


class NotAllowed(AutoVisionError):
    """The server refused the token; give one with the scope that the message names, by `autovision token create`."""

    exit_code = 2


class Client:
    """Talks to one server. Thread-safe; a context manager.

    A request that never reached the server, or was answered 503 or 429 with `Retry-After`, is sent again for up
    to `retry_for_s` seconds. Nothing else is: a request whose fate is unknown may have been counted.

    Args:
        token: what `autovision token create` printed; None: the server is open.
        tls: whom to trust for an https URL; None: the authorities that the system trusts.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        retry_for_s: float = 10.0,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            self._url = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InvalidInput(
                f"{url!r} is not a URL ({error}); give one like http://127.0.0.1:8000"
            ) from None
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise InvalidInput(f"{url!r} is not a URL of a server; give one like http://127.0.0.1:8000")
        self._retry_for_s = retry_for_s
        self._http = httpx.Client(
            base_url=self._url,
            timeout=timeout_s,
            trust_env=not is_loopback(self._url.host),
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            verify=True if tls is None else tls,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(
        self, image: bytes, *, metadata: Mapping[str, str] | None = None, key: str | None = None
    ) -> Answer:
        """The answer for the bytes of one image.

        Args:
            key: of whoever asks: during a rollout one key is always answered by the same model.

        Raises `InvalidImage`, `ImageTooLarge`, `InvalidInput`, `ServerUnavailable`.
        """
        headers = {b"content-type": b"application/octet-stream", **_headers_of(metadata, key)}
        response = self._send("POST", "/v1/predict", content=image, headers=headers)
        return Answer.model_validate_json(response.content)

    def predict_all(
        self,
        images: Sequence[bytes],
        *,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> list[Answer | AutoVisionError]:
        """The answers for several images, sent in one request; an image that has none gives its error in its place.

        Args:
            metadata: of all of them.
            key: see `predict`.

        Raises like `predict` what concerns all of them, such as too many images.
        """
        if not images:
            return []
        if len(images) == 1:
            try:
                return [self.predict(images[0], metadata=metadata, key=key)]
            except InvalidImage as error:
                return [error]
        files = [("image", (str(number), data)) for number, data in enumerate(images)]
        form = httpx.Request("POST", self._url, files=files)
        headers = {b"content-type": form.headers["content-type"].encode(), **_headers_of(metadata, key)}
        response = self._send("POST", "/v1/predict", content=form.read(), headers=headers)
        return [_answer_or_error(item, str(self._url)) for item in response.json()]

    def feedback(
        self, request_id: str, label: Labels, *, annotator: str = "unknown", confidence: float = 1.0
    ) -> FeedbackReceipt:
        """Say what an image really was: its class, or a tuple where it may have any number of classes.

        Raises `InvalidInput` for a label that is no class.
        """
        said = {"label": label} if isinstance(label, str) else {"labels": label}
        item = {"request_id": request_id, **said, "annotator": annotator, "confidence": confidence}
        response = self._send("POST", "/v1/feedback", content=json.dumps(item).encode())
        return FeedbackReceipt.model_validate_json(response.content)

    def info(self) -> ServerInfo:
        """The state of the replica that answers."""
        return ServerInfo.model_validate_json(self._send("GET", "/v1/model").content)

    def health(self) -> Health:
        """Whether images can be answered now; a server that waits for a model is no error here."""
        response = self._once("GET", "/v1/health")
        if response.status_code not in (200, 503) or "following" not in response.text:
            raise _error_of(response)
        return Health.model_validate_json(response.content)

    def wait_captured(self, timeout_s: float = 10.0) -> bool:
        """Wait until nothing that was answered is left to store; False if that takes longer.

        Speaks for one replica; `ServerHandle.flush` does for all.
        """
        deadline = monotonic() + timeout_s
        while True:
            captures = self.info().captures
            if captures is None or captures.pending == 0:
                return True
            if monotonic() >= deadline:
                return False
            sleep(0.1)

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> httpx.Response:
        deadline = monotonic() + self._retry_for_s
        pause_s = 0.1
        while True:
            try:
                response = self._once(method, path, content=content, headers=headers)
            except _NotConnected as error:
                if monotonic() + pause_s > deadline:
                    raise ServerUnavailable(str(error)) from error
            else:
                retry_after = response.headers.get("retry-after", "")
                if response.status_code not in (429, 503) or not retry_after.isdigit():
                    if response.is_success:
                        return response
                    raise _error_of(response)
                # The server's wish is kept unless it is longer than we may wait at all.
                pause_s = max(pause_s, float(retry_after))
                if monotonic() + pause_s > deadline:
                    raise _error_of(response)
            sleep(pause_s)
            pause_s = min(2.0, pause_s * 2)

    def _once(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> httpx.Response:
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _NotConnected(
                f"no server answers at {self._url} ({error}); start it with `autovision serve`"
            ) from error
        except httpx.TransportError as error:
            raise ServerUnavailable(
                f"the server at {self._url} broke off the request ({type(error).__name__}: {error}); "
                "send it again"
            ) from error


class _NotConnected(ServerUnavailable):
    """The request never left."""


def _headers_of(metadata: Mapping[str, str] | None, key: str | None) -> dict[bytes, bytes]:
    headers = {
        b"x-autovision-meta-" + name.replace("_", "-").encode(): value.encode()
        for name, value in (metadata or {}).items()
    }
    return headers if key is None else headers | {b"x-autovision-key": key.encode()}


def _answer_or_error(item: dict[str, object], url: str) -> Answer | AutoVisionError:
    """One of the answers to several images."""
    if "request_id" in item and "model" in item:
        return Answer.model_validate(item)
    problem = Problem.model_validate(item)
    return _error(problem.status, problem.type, problem.detail, url)


def _error_of(response: httpx.Response) -> AutoVisionError:
    """The exception for an answer that is no success."""
    kind, detail = "", response.text[:300]
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem = response.json()
        kind, detail = str(problem.get("type", "")), str(problem.get("detail", detail))
    return _error(response.status_code, kind, detail, str(response.request.url))


def _error(status: int, kind: str, detail: str, url: str) -> AutoVisionError:
    message = f"{detail} (HTTP {status} from {url})"
    if status == 413 and not kind.endswith(":too-many-images"):
        return ImageTooLarge(message)
    if kind.endswith(":invalid-image"):
        return InvalidImage(message)
    if status in (401, 403):
        return NotAllowed(message)
    # Of what the server might take at another time, nothing is wrong with the input.
    refused = 400 <= status < 500 and status not in (408, 429)
    return InvalidInput(message) if refused else ServerUnavailable(message)


def is_loopback(host: str) -> bool:
    """A proxy from the environment cannot reach this machine's own loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
