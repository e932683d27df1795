"""A server that speaks S3, for tests: moto, in a process of its own. It needs the `dev` extra.

    with s3_server() as url: ...

    python -m autovision.testing.s3_server

moto looks at a request's condition and writes in two steps; S3 decides in one. So requests are answered one at a time
here. An upload that was cut off is refused, as S3 does.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a new, empty server. It ends with this process at the latest."""
    command = [sys.executable, "-m", __name__]
    # Small parts, so that tests of large objects need none; and all of it in memory.
    small = {"S3_UPLOAD_PART_MIN_SIZE": "1", "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(64 << 20)}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # moto shows where it fails on what S3 refuses
        text=True,
        env={**os.environ, **small},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if not (url := process.stdout.readline().strip()):
                raise RuntimeError(f"`{' '.join(command)}` did not start; install the extra `dev`")
            yield url
        finally:
            process.stdin.close()


def main() -> None:
    """Print the URL, and serve until stdin ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class KeepsConnections(WSGIRequestHandler):  # type: ignore[misc]
        protocol_version = "HTTP/1.1"

        def log(self, *args: Any) -> None:
            pass

    app = _OneAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=KeepsConnections)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.port}", flush=True)
    sys.stdin.read()


class _OneAtATime:
    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        expected = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(expected) if expected else b""
        if len(body) != expected:
            start_response("400 Bad Request", [("Content-Length", "0"), ("Connection", "close")])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(body)
        # Its routes know no newline in a key; the key itself is taken from the undecoded address.
        environ["PATH_INFO"] = environ["PATH_INFO"].replace("\n", "\x1e")
        with self._lock:
            return list(self._app(environ, start_response))


if __name__ == "__main__":
    main()
