"""A small client of the HTTP routes, for the command line, for notebooks and for the demo."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from time import monotonic, sleep
from typing import Self

import httpx

from autovision.errors import AutoVisionError, ImageTooLarge, InvalidImage, InvalidInput
from autovision.records.datasets import Labels
from autovision.serving.schema import Answer, FeedbackReceipt, Health, ServerInfo


class ServerUnavailable(AutoVisionError):
    """The server cannot be reached or is not ready; check its URL, and that `autovision serve` runs."""

    exit_code = 7


class Client:
    """Talks to one server. Thread-safe; a context manager.

    A request that never reached the server, or was answered 503 with `Retry-After`, is sent again for up
    to `retry_for_s` seconds. Nothing else is: a request whose fate is unknown may have been counted.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, retry_for_s: float = 10.0) -> None:
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
            base_url=self._url, timeout=timeout_s, trust_env=not _is_loopback(self._url.host)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(self, image: bytes, *, metadata: Mapping[str, str] | None = None) -> Answer:
        """The answer for the bytes of one image.

        Raises `InvalidImage`, `ImageTooLarge`, `InvalidInput`, `ServerUnavailable`.
        """
        headers = {b"content-type": b"application/octet-stream"}
        for name, value in (metadata or {}).items():
            headers[b"x-autovision-meta-" + name.replace("_", "-").encode()] = value.encode()
        response = self._send("POST", "/v1/predict", content=image, headers=headers)
        return Answer.model_validate_json(response.content)

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
                if response.status_code != 503 or not retry_after.isdigit():
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


def _error_of(response: httpx.Response) -> AutoVisionError:
    """The exception for an answer that is no success."""
    status = response.status_code
    kind, detail = "", response.text[:300]
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        problem = response.json()
        kind, detail = str(problem.get("type", "")), str(problem.get("detail", detail))
    message = f"{detail} (HTTP {status} from {response.request.url})"
    if status == 413:
        return ImageTooLarge(message)
    if kind.endswith(":invalid-image"):
        return InvalidImage(message)
    return InvalidInput(message) if 400 <= status < 500 else ServerUnavailable(message)


def _is_loopback(host: str) -> bool:
    """A proxy from the environment cannot reach this machine's own loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
