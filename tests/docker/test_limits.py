"""Kubernetes' quantities and the limits of a spec."""

import pytest

from pachd.errors import PachError
from pachd.pps.limits import Limits, quantity
from pachd.proto import pps_pb2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("128974848", 128974848), ("129e6", 129e6), ("129M", 129e6), ("123Mi", 123 << 20),
        ("1.5Gi", 1.5 * 2**30), ("500m", 0.5), (".5k", 500),
        ("2Ki", 2048), ("1E", 1e18), ("1Ei", 2**60), ("1E3", 1000), (" 64M ", 64e6),
    ],
)  # fmt: skip
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "M", "12 M", "-1", "1MB", "0x10", "1e", "infinity", "1.2.3"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(PachError, match="is no quantity"):
        quantity(text)


def test_of_a_spec() -> None:
    details = pps_pb2.PipelineInfo.Details()
    assert Limits.of(details) == (0.0, 0, 0, "")
    details.resource_limits.cpu = 0.5
    details.resource_limits.memory = "64Mi"
    details.resource_limits.gpu.number = 2
    limits = Limits.of(details)
    assert (limits.cpu, limits.memory, limits.gpus) == (0.5, 64 << 20, 2)
    assert limits.out_of_memory() == "out of memory: the code was killed at its limit of 64Mi (resourceLimits.memory)"
