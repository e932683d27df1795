"""Other servers around the very model that AutoVision serves, each as its guide says, for `bench_serving.py`.

    python tests/benchmarks/serving_peers.py fastapi STORE MODEL PORT

    bare      no HTTP at all: decoding in threads and the compiled model on batches, in a loop; prints images per second
    fastapi   FastAPI on uvicorn: an endpoint in a thread, a lock around the model
    eager     the same with the network as PyTorch runs it
    litserve  LitServe: a LitAPI with batches of 16 that wait 5 ms, one worker
    bentoml   BentoML: a service with adaptive batching, as many at once

All decode an image's bytes by `autovision.image` and answer class and probabilities as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request  # by its name in this module, FastAPI tells a request from a query

BATCH = 16


class Model:
    """The compiled network of a model version, with its preprocessing."""

    def __init__(self, store: str, model: str, *, eager: bool = False) -> None:
        from autovision.model import bundle
        from autovision.model.inference import EagerModule
        from autovision.model.predictor import Predictor
        from autovision.model.version import read_version
        from autovision.store import open_store

        opened = open_store(store)
        self.version = read_version(opened, model)
        self.predictor = Predictor.load(opened, model)
        if eager:
            self.predictor._scorer._compiled = EagerModule(bundle.load_network(opened, self.version))

    def decode(self, data: bytes) -> np.ndarray:
        from autovision import image

        return image.load(data, self.version.preprocessing)

    def answers(self, pixels: np.ndarray) -> list[dict[str, Any]]:
        probabilities, _ = self.predictor.score(pixels)
        classes = self.version.classes
        return [
            {
                "label": classes[int(row.argmax())],
                "probabilities": dict(zip(classes, row.tolist(), strict=True)),
            }
            for row in probabilities
        ]


@functools.cache
def model_of(store: str, model: str, eager: bool = False) -> Model:
    return Model(store, model, eager=eager)


def bare(store: str, model: str, files: list[str], seconds: float) -> float:
    """Images per second of decoding and the model on both cores, and nothing else."""
    loaded = model_of(store, model)
    images = [Path(each).read_bytes() for each in files]
    batch = [images[number % len(images)] for number in range(BATCH)]
    until = time.perf_counter() + 1.0
    while time.perf_counter() < until:
        loaded.predictor.predict(batch)
    begun, done = time.perf_counter(), 0
    while (now := time.perf_counter()) < begun + seconds:
        done += len(loaded.predictor.predict(batch))
    return done / (now - begun)


def fastapi(store: str, model: str, port: int, *, eager: bool = False) -> None:
    import uvicorn
    from fastapi import FastAPI
    from fastapi.concurrency import run_in_threadpool

    app, loaded, lock = FastAPI(), model_of(store, model, eager), threading.Lock()

    def answer(data: bytes) -> dict[str, Any]:
        pixels = loaded.decode(data)[None]
        with lock:
            return loaded.answers(pixels)[0]

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(answer, await request.body())

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def litserve(store: str, model: str, port: int) -> None:
    import litserve

    api = Api(max_batch_size=BATCH, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def bentoml(store: str, model: str, port: int) -> None:
    """BentoML imports a service by its name: `SERVICE` below reads from the environment what it is to load."""
    os.environ |= {"PEER_STORE": store, "PEER_MODEL": model}
    here = Path(__file__)
    command = ["-m", "bentoml", "serve", f"{here.stem}:SERVICE", "--host", "127.0.0.1", "--port", str(port)]
    os.chdir(here.parent)
    os.execv(sys.executable, [sys.executable, *command, "--working-dir", str(here.parent)])


def _bentoml_service() -> Any:
    import bentoml

    @bentoml.service(traffic={"timeout": 30, "max_concurrency": 64}, workers=1)
    class Cells:
        def __init__(self) -> None:
            self.loaded = model_of(os.environ["PEER_STORE"], os.environ["PEER_MODEL"])

        @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=1000)
        def predict(self, images: list[Path]) -> list[dict[str, Any]]:
            pixels = np.stack([self.loaded.decode(each.read_bytes()) for each in images])
            return self.loaded.answers(pixels)

    return Cells


if "PEER_STORE" in os.environ and __name__ != "__main__":
    SERVICE = _bentoml_service()


if sys.argv[1:2] == ["litserve"]:
    # Its workers are processes that import this file, and have its arguments.
    import litserve as _litserve

    class Api(_litserve.LitAPI):  # type: ignore[misc]
        def setup(self, device: str) -> None:
            self.loaded = model_of(sys.argv[2], sys.argv[3])

        def decode_request(self, request):  # type: ignore[no-untyped-def]  # a type would make it a query
            return self.loaded.decode(request["image"].file.read())

        def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
            return np.stack(inputs)

        def predict(self, pixels: np.ndarray) -> list[dict[str, Any]]:
            return self.loaded.answers(pixels)

        def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return output

        def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
            return output


def main() -> None:
    kind, store, model, *rest = sys.argv[1:]
    match kind:
        case "bare":
            print(json.dumps(bare(store, model, rest[1:], float(rest[0]))))
        case "fastapi":
            fastapi(store, model, int(rest[0]))
        case "eager":
            fastapi(store, model, int(rest[0]), eager=True)
        case "litserve":
            litserve(store, model, int(rest[0]))
        case "bentoml":
            bentoml(store, model, int(rest[0]))
        case _:
            raise SystemExit(f"there is no server {kind!r}")


if __name__ == "__main__":
    main()
