"""Networks that were compiled or converted before: what runs them, which needs no PyTorch."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

import numpy as np

from autovision.model import telemetry

Precision = Literal["f32", "bf16"]

MOST_COPIES = 8
"""of a network, for as many calls at once; for more of them OpenVINO's streams share one, which are slower"""

_starting = threading.Lock()
"""two threads do not both make OpenVINO's core"""


class Compiled(Protocol):
    """A thread-safe function from uint8 pixels (B, H, W, 3) to float32 arrays, one per output of the module."""

    runtime: str

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]: ...


class OpenVinoModule:
    """A converted network, compiled by OpenVINO for this CPU; the batch size is free.

    Args:
        path: of the converted network. What is quantized in it is computed in int8, the rest in `precision`.
        threads: CPU threads.
        streams: calls that are computed at once, each by its share of the threads.
    """

    runtime = "openvino"

    def __init__(self, path: Path, precision: Precision, threads: int, streams: int = 1) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "ENABLE_CPU_PINNING": False,  # pinned, two trials on one machine would share the first core
        }
        self.path, self.precision = path, precision
        self._compiled = openvino_core().compile_model(str(path), "CPU", settings)
        self._local = threading.local()

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        result = self._local.request.infer([pixels], share_inputs=True)
        return [np.array(result[i], dtype=np.float32) for i in range(len(result))]

    def side_by_side(self, calls: int) -> Compiled:
        """The same network once more, for so many calls at once, each of which one thread computes.

        Whoever calls a network of one stream computes it; streams have threads of their own, to which each call is
        handed: single images took a tenth longer on two cores.
        """
        if calls > MOST_COPIES:
            return OpenVinoModule(self.path, self.precision, calls, streams=calls)
        return Copies([OpenVinoModule(self.path, self.precision, 1) for _ in range(calls)])


class Copies:
    """A network several times, of which each call has one to itself; more calls than there are wait for one."""

    def __init__(self, networks: Sequence[Compiled]) -> None:
        self.runtime = networks[0].runtime
        self._free: SimpleQueue[Compiled] = SimpleQueue()
        for network in networks:
            self._free.put(network)

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        network = self._free.get()
        try:
            return network(pixels)
        finally:
            self._free.put(network)


class OnnxModule:
    """A network in ONNX's format, run by ONNX Runtime on the CPU in float32; the batch size is free.

    Args:
        path: of the ONNX file.
        threads: CPU threads of one call.
    """

    runtime = "onnx"
    precision: Precision = "f32"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin while they wait take the cores from those that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        outputs = self._session.run(None, {self._input: np.ascontiguousarray(pixels)})
        return [np.asarray(output, np.float32) for output in outputs]

    def side_by_side(self, calls: int) -> OnnxModule:
        """As `OpenVinoModule.side_by_side`: whoever calls it computes."""
        return OnnxModule(self.path, 1)


def openvino_core() -> Any:
    """OpenVINO's core, one for as long as the process lives.

    Each loads its CPU plugin anew, which gives the thread an alternate signal stack, and puts back the one of before
    when it is freed. If one that was made earlier is freed earlier, what is put back was freed, too, and the next
    signal (Ctrl-C, SIGTERM) ends the process with a segmentation fault.
    """
    with _starting:
        return _only_core()


@functools.cache
def _only_core() -> Any:
    telemetry.silence()
    import openvino as ov

    return ov.Core()


def cpu_precision() -> Precision:
    """bf16 where this node's processor computes it in hardware, f32 elsewhere."""
    return "bf16" if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def default_threads() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
