"""The command `howdah`: options, errors and exit codes of all its subcommands.

Exit codes: 0 done, 1 it failed (one sentence says why), 2 the command line is wrong.
"""

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from platformdirs import user_data_path

ADDRESS = "127.0.0.1:30650"


def data_folder() -> Path:
    """Where `howdah up` keeps everything unless told otherwise."""
    return user_data_path("howdah")


class Command(click.Command):
    """A command whose errors are one sentence; examples stand below its help as they were written."""

    def __init__(self, name: str | None = None, examples: str = "", **more: Any) -> None:
        super().__init__(name, epilog="\b\nExamples:\n" + examples.strip("\n") if examples else None, **more)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  howdah up --data ~/howdah\n  howdah status\n  howdah blame images@master:/0042.png\n\n"
    "`howdah COMMAND --help` has examples of each.",
)
@click.version_option(package_name="howdah", prog_name="howdah")
def main() -> None:
    """Versioned labelling: Label Studio on Pachyderm repos, and where each model comes from.

    `howdah up` starts everything on this machine. The other commands ask any pachd, embedded or a cluster.
    """


_GUARDED = [
    click.option("--pachd-token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
                 help="File with the token to show to pachd.  [env: PACH_TOKEN, the token itself]"),
    click.option("--pachd-ca-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
                 envvar="PACHD_CA_FILE", help="Certificates to trust with grpcs.  [env: PACHD_CA_FILE]"),
]  # fmt: skip


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def question(name: str, examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command that asks a pachd: with --json, --pachd-address and errors as sentences.

    The function gets a client first, then its own parameters, and returns (answer, function that shows it to a person).
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(
            pachd_address: str,
            token: str | None,
            pachd_token_file: Path | None,
            pachd_ca_file: Path | None,
            as_json: bool,
            **parameters: Any,
        ) -> None:
            from pachd.client import Client, RpcError

            try:
                if pachd_token_file is not None:
                    token = pachd_token_file.read_text().strip()
                client = Client(pachd_address, token=token, timeout=60, ca_file=pachd_ca_file)
            except OSError as e:
                raise click.ClickException(f"the token file {e.filename} cannot be read: {e.strerror}") from None
            except ValueError as e:
                raise click.UsageError(str(e)) from None
            with client:
                try:
                    answer, show = function(client, **parameters)
                except RpcError as e:
                    raise click.ClickException(sentence(e, pachd_address)) from None
            if as_json:
                click.echo(json.dumps(answer, indent=2))
            else:
                show(answer)

        run = click.option("--json", "as_json", is_flag=True, help="Answer as JSON, for programs.")(run)
        run = click.option("--token", envvar="PACH_TOKEN", help="Access token; better in PACH_TOKEN or a file, as "
                           "others see command lines.  [env: PACH_TOKEN]")(run)  # fmt: skip
        run = click.option(
            "--pachd-address",
            envvar=["HOWDAH_PACHD_ADDRESS", "PACHD_ADDRESS"],
            default=ADDRESS,
            show_default=True,
            metavar="HOST:PORT",
            help="The pachd to ask; grpcs://HOST:PORT for TLS.  [env: HOWDAH_PACHD_ADDRESS, PACHD_ADDRESS]",
        )(run)
        return main.command(name, cls=Command, examples=examples)(_options(*_GUARDED)(run))

    return decorate


def sentence(error: Exception, address: str) -> str:
    """What a person reads when a call failed: the server's words, and what to do where that is known."""
    from grpclib.const import Status

    from pachd.client import RpcError

    # two lines belong together, as for a missing branch; more is a stack of the server
    first = ": ".join(line.strip() for line in str(error).strip().splitlines()[:2]) or "unknown error"
    if isinstance(error, RpcError) and error.code is Status.UNAVAILABLE:
        return f"{first}. Is it running? Start it with `howdah up`, or name another with --pachd-address."
    if isinstance(error, RpcError) and error.code in (Status.UNAUTHENTICATED, Status.PERMISSION_DENIED):
        return f"{first}. Give a token of somebody who may with --pachd-token-file or PACH_TOKEN."
    for steps, words in _PLAINER:
        first = re.sub(steps, words, first)
    if re.fullmatch(r"branch \S+@[0-9a-f]{32} not found", first):
        first = first.replace("branch", "commit", 1)
    return f"{first}. `howdah status` shows what there is." if first.endswith("not found") else first


# A server's error begins with the steps that led to it; a person wants to know what there is not.
_PLAINER = (
    (
        r"^(?:pick commit tx: |picking (?:commit|branch|repo|project): "
        r"|commit \S+@\S* not found: (?=repo|branch \"[^\"]|picking))+",
        "",
    ),
    (r"^(commit \S+@\S+ not found): branch \"\" not found in repo .*", r"\1"),
    (
        r"^invalid offset for ancestor of commit: (\S+?)(?:\.user)?@(\S+), "
        r"offset requested: (\d+), offset traversable: (\d+)$",
        r"\1@\2 has \4 commits before it, not \3",
    ),
    (r'^branch "(\S+)" not found in repo (\S+)$', r"branch \2@\1 not found"),
    (r"^(?:[a-z ]+: )?repo \(id=\d+, project=(\S+), name=(\S+), type=user\) not found.*", r"repo \1/\2 not found"),
    (r"^(?:[a-z ]+: )?branch \(id=\d+, branch=(\S+)\) not found.*", r"branch \1 not found"),
)


@question("status", "  howdah status\n  howdah status --pachd-address grpc://cluster.example:30650 --json")
def status(client: Any) -> Any:
    """Show repos with their heads, pipelines with their last jobs."""
    from howdah import show
    from howdah.status import status as ask

    return ask(client), show.status


@question(
    "blame",
    "  howdah blame labels@master:/cats/001.jpg.json\n  howdah blame images@master:/cats/001.jpg\n"
    "  howdah blame labels@master^:/0042.png --json",
)
@click.argument("ref", metavar="REPO@BRANCH:PATH")
@click.option("--labels", default="labels", show_default=True, metavar="REPO", help="Where the labels of images are.")
def blame(client: Any, ref: str, labels: str) -> Any:
    """Tell who labelled an item, when, and in which commit.

    PATH is the label file, or the labelled image.
    """
    from howdah import show
    from howdah.blame import blame as ask
    from howdah.pachyderm import parse

    return ask(client, parse(ref), labels), show.blame


@question(
    "lineage",
    "  howdah lineage labels@master\n  howdah lineage train@0f3c… --all\n  howdah lineage evaluate@master --json",
)
@click.argument("ref", metavar="REPO@COMMIT")
@click.option("--all", "everything", is_flag=True, help="Also the repos of pipelines' specs and bookkeeping.")
def lineage(client: Any, ref: str, everything: bool) -> Any:
    """Show what a commit was made of and what was made of it.

    COMMIT is a commit ID or a branch.
    """
    from howdah import show
    from howdah.lineage import lineage as ask
    from howdah.pachyderm import parse

    return ask(client, _without_path(parse(ref)).commit, everything), show.lineage


@question("metrics", "  howdah metrics evaluate@master\n  howdah metrics evaluate@master --json")
@click.argument("ref", metavar="REPO@BRANCH")
def metrics(client: Any, ref: str) -> Any:
    """Show the accuracy per commit of an evaluation, newest first.

    Each commit is compared with the one before on the items that both evaluated.
    """
    from howdah import show
    from howdah.metrics import metrics as ask
    from howdah.pachyderm import parse

    return ask(client, _without_path(parse(ref)).commit), show.metrics


@question("rollback", "  howdah rollback labels@master --to 0f3c…\n  howdah rollback labels@master --to 'master^'")
@click.argument("ref", metavar="REPO@BRANCH")
@click.option("--to", required=True, metavar="COMMIT", help="Commit ID of the same repo, or an ancestor as in master^.")
def rollback(client: Any, ref: str, to: str) -> Any:
    """Move the head of a branch back to an earlier commit.

    History stays: every commit is kept, and moving forward again works the same way. Pipelines run with the old data
    again; what they need not compute again they skip. The output of a pipeline cannot be rolled back, but its input.
    """
    from howdah import show
    from howdah.pachyderm import parse
    from howdah.rollback import rollback as act

    commit = _without_path(parse(ref)).commit
    if not to.strip():
        raise click.UsageError("--to is empty: name a commit ID, or an ancestor such as 'master^'")
    if commit.id:
        raise click.UsageError(f"{ref} names a commit; the head of a branch is moved: REPO@BRANCH --to COMMIT")
    return act(client, commit.branch, to), show.rollback


def _without_path(file: Any) -> Any:
    if file.path:
        raise click.UsageError(f"no path is wanted here: leave out :{file.path}")
    return file


_PACHD = [
    click.option("--pachd-address", metavar="HOST:PORT",
                 help="Use this pachd instead of starting one; grpcs://HOST:PORT for TLS."),
    *_GUARDED,
]  # fmt: skip
_PORT = click.IntRange(1, 65535)
_SERVICES = [
    click.option("--mount-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
                 help="Where repos are seen as files.  [default: DATA/pfs]"),
    click.option("--pachd-port", type=_PORT, default=30650, show_default=True, help="Port of the embedded pachd."),
    click.option("--mount-port", type=_PORT, default=9002, show_default=True, help="Port of the mount server."),
    click.option("--label-studio-port", type=_PORT, default=8080, show_default=True, help="Port of Label Studio."),
]  # fmt: skip


def _executor(default: str) -> Callable[..., Any]:
    kind = click.Choice(["auto", "process", "docker"])
    about = "Where the pipelines of a pachd that is started here run; see pachd --help."
    return click.option("--executor", type=kind, default=default, show_default=True, help=about)


@main.command(
    cls=Command,
    examples="  howdah up\n  howdah up --data ~/howdah --label-studio-port 8081\n"
    "  howdah up --pachd-address grpcs://cluster.example:30650 --pachd-token-file ~/.token",
)
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help=f"Folder that holds everything; made if missing.  [default: {data_folder()}]")  # fmt: skip
@_options(*_PACHD, _executor("auto"), *_SERVICES)
@click.option("--no-label-studio", is_flag=True, help="Start no Label Studio.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per service when it is ready.")
def up(data: Path | None, **options: Any) -> None:
    """Start everything and keep it running until Ctrl-C.

    That is pachd, mount server and Label Studio. Prints one line per service with its URL. Everything listens on this
    machine only. The first Label Studio login is written to DATA/login.json, readable by its owner alone.
    """
    from howdah.up import run

    raise SystemExit(run(data or data_folder(), **options))


@main.command(cls=Command, examples="  howdah demo\n  howdah demo --keep\n  howdah demo --report report.json --json")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Folder for the demo's data.  [default: a temporary one, removed at the end]")  # fmt: skip
@_options(*_PACHD, _executor("process"))  # this checkout's code, not that of an image
@click.option("--keep", is_flag=True, default=lambda: os.environ.get("KEEP", "0") not in ("", "0"),
              help="Leave everything running at the end until Ctrl-C.")  # fmt: skip
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), default=Path("demo-report.json"),
              show_default=True, metavar="FILE", help="Where the report is written.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of showing it.")
def demo(**options: Any) -> None:
    """Run the whole loop once, on 1,797 scanned digits.

    Label, Sync, train, evaluate; label more, Sync, train and evaluate again; then ask where it all came from.
    """
    from howdah.demo import run

    raise SystemExit(run(**options))
