"""A jq expression on JSON lines: `python -m pachd.api.jq_process EXPRESSION`.

Answers `true` when the expression compiles, then one line per line of input: `true` or `false`, or what is wrong.
"""

import json
import resource
import sys

import jq

MEMORY = 1 << 30  # bytes of address space
CPU = 60  # seconds


def main() -> None:
    """Read, filter and answer until stdin ends or something is wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    try:
        program = jq.compile(sys.argv[1])
    except ValueError as error:
        _end("error parsing jq filter", error)
    print("true", flush=True)
    for line in sys.stdin:
        try:
            result = next(iter(program.input_value(json.loads(line))), None)
        except ValueError as error:
            _end("error applying jq filter on proto message", error)
        print("true" if result is not None and result is not False else "false", flush=True)


def _end(what: str, error: Exception) -> None:
    print(f"{what}: {' '.join(str(error).split())}", flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
