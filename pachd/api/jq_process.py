"""A jq expression on JSON lines: `python -m pachd.api.jq_process EXPRESSION`.

Answers `true` when the expression compiles, then one line per line of input: `true` or `false`, or what is wrong.
"""

import json
import re
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
        _end(*_wrong(sys.argv[1], str(error)))
    print("true", flush=True)
    for line in sys.stdin:
        try:
            result = next(iter(program.input_value(json.loads(line))), None)
        except ValueError as error:
            _end("error applying jq filter on proto message", _failed(str(error)))
        print("true" if result is not None and result is not False else "false", flush=True)


def _wrong(expression: str, told: str) -> tuple[str, str]:
    """What is wrong with an expression, in the words of the jq that Pachyderm uses."""
    if missing := re.search(r"(\S+) is not defined", told):
        kind = "variable" if missing[1].startswith("$") else "function"
        return "error compiling jq filter", f"{kind} not defined: {missing[1]}"
    parsing = "error parsing jq filter"
    if "unexpected end of file" in told:
        return parsing, "unterminated string literal" if "QQSTRING" in told else "unexpected EOF"
    place = re.search(r"line (\d+), column (\d+)", told)
    if "syntax error, unexpected" in told and place:
        lines = expression.splitlines()
        rest = lines[int(place[1]) - 1][int(place[2]) - 1 :] if int(place[1]) <= len(lines) else ""
        if token := re.match(r"\w+|\S", rest):
            return parsing, f'unexpected token "{token[0]}"'
    return parsing, told


def _failed(told: str) -> str:
    """Why an expression failed, in the same words."""
    for verb, done in ("add", "added"), ("subtract", "subtracted"), ("multiply", "multiplied"), ("divide", "divided"):
        if operands := re.fullmatch(rf"(.*) cannot be {done}", told):
            return f"cannot {verb}: {operands[1]}"
    return told


def _end(what: str, why: str) -> None:
    print(f"{what}: {' '.join(why.split())}", flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
