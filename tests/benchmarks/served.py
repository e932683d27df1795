"""What the benchmarks of the server share: a model, real images as files, and servers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from common import solar_cells
from PIL import Image

from autovision.api import AutoVision
from autovision.serving.ports import claim_port

HERE = Path(__file__).parent
OURS = "autovision"
START_S = 300.0


def trained(av: AutoVision, quick: bool, seed: int = 0) -> str:
    """A model as a short search finds it: which one has no influence on what serving costs."""
    state = av.search("solar", space="quick", budget_s=60 if quick else 120, max_trials=1, seed=seed)
    assert state.model is not None
    return state.model


def images(folder: Path, number: int) -> dict[str, list[str]]:
    """Files of each kind."""
    png, jpeg = [], []
    for at, cell in enumerate(solar_cells()[:number]):
        whole = folder / f"{at}.png"
        assert cell.path is not None
        whole.write_bytes(cell.path.read_bytes())
        large = folder / f"{at}.jpg"
        with Image.open(whole) as image:
            image.convert("RGB").resize((640, 480)).save(large, "JPEG", quality=90)
        png.append(str(whole))
        jpeg.append(str(large))
    return {"PNG 300 x 300": png, "JPEG 640 x 480": jpeg}


@contextmanager
def running(kind: str, store: str, model: str, python: str = sys.executable, *options: str) -> Iterator[int]:
    """A server that answers, and its port; its whole process group is gone afterwards."""
    port = claim_port("127.0.0.1", 0)
    if kind == OURS:
        command = [str(Path(sys.executable).with_name("autovision")), "serve", model]
        command += ["--port", str(port), "--store", store, *options]
    else:
        command = [python, str(HERE / "serving_peers.py"), kind, store, model, str(port)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    )
    try:
        _wait(kind, port, process)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(kind: str, port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    path = "/v1/health" if kind == OURS else {"bentoml": "/readyz", "litserve": "/health"}.get(kind, "/docs")
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.stderr is not None
            raise SystemExit(f"{kind} ended: {process.stderr.read()[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{kind} did not start within {START_S:g} s")


def serving(part: str) -> list[psutil.Process]:
    """Processes that this one started, by a part of their command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            if part in " ".join(process.cmdline()):
                found.append(process)
    return found
