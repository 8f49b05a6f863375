"""The command line of a pipeline's module: its documentation as help, and nothing unknown is taken."""

import argparse


def options(documentation: str | None, **flags: str) -> argparse.Namespace:
    """Read the command line: `flags` are the switches there are, with their help. Exits on --help and on mistakes."""
    first, _, rest = (documentation or "").partition(": ")
    parser = argparse.ArgumentParser(
        prog=f"python3 -m pipelines.{first}", description=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, about in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=about)
    return parser.parse_args()
