"""What a pipeline's workers may use: `resourceLimits` of its spec, in Kubernetes' notation."""

from __future__ import annotations

import re
from typing import NamedTuple

from pachd.errors import PachError
from pachd.proto import pps_pb2

OUT_OF_MEMORY = "out of memory: "  # how the reason of every datum that failed for it begins
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+)|(m|k|[MGTPE]i?|Ki)?)")
_FACTORS = {"m": 1e-3, "": 1.0, "k": 1e3} | {
    f"{letter}{binary}": (1024.0 if binary else 1000.0) ** power
    for power, letter in enumerate("KMGTPE", 1)
    for binary in ("", "i")
}


def quantity(text: str) -> float:
    """A number with a suffix (`512M`, `1.5Gi`, `2e9`, `500m`) as a plain number; PachError when it is none."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise PachError(f'"{text}" is no quantity: write a number and, if wanted, one of k M G T Ki Mi Gi Ti')
    number, exponent, suffix = match.groups()
    return float(number) * (10.0 ** int(exponent) if exponent else _FACTORS[suffix or ""])


class Limits(NamedTuple):
    """The limits of one worker: ``cpu`` in cores, ``memory`` in bytes, how many ``gpus``; 0 means no limit."""

    cpu: float = 0.0
    memory: int = 0
    gpus: int = 0
    memory_text: str = ""  # as the spec has it

    @classmethod
    def of(cls, details: pps_pb2.PipelineInfo.Details) -> Limits:
        """The limits that a pipeline's spec sets."""
        found = details.resource_limits
        memory = int(quantity(found.memory)) if found.memory else 0
        return cls(max(0.0, found.cpu), memory, max(0, found.gpu.number), found.memory)

    def out_of_memory(self) -> str:
        """The reason of code that was killed because there was no memory left."""
        if self.memory:
            return f"{OUT_OF_MEMORY}the code was killed at its limit of {self.memory_text} (resourceLimits.memory)"
        return f"{OUT_OF_MEMORY}the code was killed because the machine has no memory left"
