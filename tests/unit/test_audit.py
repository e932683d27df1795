"""The audit of dependencies, with an advisory service of the test's own: what it says, and when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "audit.py"
FAULT = {
    "id": "OSV-1",
    "schema_version": "1.6.0",
    "summary": "it answers too much",
    "affected": [
        {
            "package": {"name": "frail", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


@contextmanager
def service(vulns: list[object], status: int = 200) -> Iterator[str]:
    """Answers every question the same."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"vulns": vulns} if vulns else {}).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with one package, `frail` 1.0."""
    info = tmp_path / "site" / "frail-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: frail\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip\n")
    return info.parent


def audit(
    installed: Path, url: str, monkeypatch: pytest.MonkeyPatch, ignore: str = ""
) -> subprocess.CompletedProcess[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AUDIT_IGNORE", ignore)
    command = [sys.executable, str(SCRIPT), "--osv-url", url, "--path", str(installed)]
    command += ["--cache-dir", str(installed.parent / "cache")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_known_fault_fails_it_unless_it_was_looked_at(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service([FAULT]) as url:
        said = audit(installed, url, monkeypatch)
        assert (said.returncode, said.stdout) == (1, "frail 1.0: OSV-1; fixed in 1.1\n"), said
        said = audit(installed, url, monkeypatch, ignore="OSV-1")
    assert (said.returncode, said.stdout) == (0, "dependency audit: nothing is known against 1 packages\n"), (
        said
    )


def test_a_service_that_cannot_be_asked_is_told_and_no_failure(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service([]) as url:
        pass
    said = audit(installed, url, monkeypatch)
    assert said.returncode == 0
    assert said.stdout.startswith("dependency audit SKIPPED: the advisory service could not be asked (")
    with service([], status=503) as url:
        said = audit(installed, url, monkeypatch)
    assert said.returncode == 0 and "SKIPPED" in said.stdout
