"""A jsonnet template from stdin, JSON {"template", "args"}; its result to stdout, JSON {"json"} or {"error"}."""

import json
import resource
import sys
from typing import Any

import rjsonnet

MEMORY = 2 << 30  # bytes of address space
CPU = 10  # seconds
LONGEST = 8 << 20  # characters of a result
_INDENT = 4  # of rjsonnet; Pachyderm's jsonnet indents by three


def _fetch(_folder: str, wanted: str) -> tuple[str, str]:
    from pachd.api import sources
    from pachd.proto import pfs_pb2

    if not wanted.startswith(("http://", "https://")):
        raise ValueError(f"couldn't open import {wanted!r}: only http and https URLs can be imported")
    url = pfs_pb2.AddFile.URLSource(URL=wanted)
    return wanted, b"".join(data for _path, data in sources.fetch("/", url)).decode()


def evaluate(template: str, args: dict[str, str]) -> str:
    """Return the JSON text of a template, indented as Pachyderm's."""
    text = str(rjsonnet.evaluate_snippet("main", template, tla_vars=args, import_callback=_fetch))
    lines = []
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip(" "))) // _INDENT
        lines.append(" " * 3 * depth + line.lstrip(" "))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Answer one question."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    question = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        text = evaluate(question["template"], question["args"])
        answer = {"json": text} if len(text) <= LONGEST else {"error": "the result is longer than 8 MiB"}
    except Exception as error:  # whatever the library and the import found wrong
        answer = {"error": str(error) or type(error).__name__}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
