import pytest

from autovision.promotion.gates.limits import Taken, within_limits
from autovision.records.gates import GatePolicy

TAKEN = Taken(
    size_mb=4.0, runtime="openvino-f32", node="a CPU, 2 threads, f32", latency_ms=10.0, memory_mb=300.0
)
LIMITS = ("max_latency_ms", "max_memory_mb", "max_size_mb")


@pytest.mark.parametrize(
    ("limit", "name", "value"),
    [
        ("max_latency_ms", "within_latency", 10.0),
        ("max_memory_mb", "within_memory", 300.0),
        ("max_size_mb", "within_size", 4.0),
    ],
)
def test_a_limit_may_be_reached_and_not_passed(limit, name, value):
    for allowed, passed in ((value, True), (0.99 * value, False)):
        (result,) = within_limits(TAKEN, GatePolicy(**{limit: allowed}))
        assert (result.name, result.passed) == (name, passed)
        assert result.numbers[limit] == allowed
        assert result.numbers[limit.removeprefix("max_")] == value
        assert f"allowed are {allowed:g}" in result.reason


def test_without_limits_there_are_no_gates():
    assert list(within_limits(TAKEN, GatePolicy())) == []


def test_what_was_measured_names_where_and_on_what():
    (result,) = within_limits(TAKEN, GatePolicy(max_latency_ms=20))
    assert "(openvino-f32 on a CPU, 2 threads, f32)" in result.reason


def test_what_could_not_be_measured_is_within_no_limit():
    taken = Taken(size_mb=4.0, runtime="onnx-f32", fault="runtime 'onnx-f32' does not agree with PyTorch")
    policy = GatePolicy(**dict.fromkeys(LIMITS, 1e6))
    found = {result.name: result for result in within_limits(taken, policy)}
    assert [result.passed for result in found.values()] == [False, False, True]
    assert "could not be measured: runtime 'onnx-f32' does not agree" in found["within_memory"].reason
