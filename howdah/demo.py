"""`howdah demo`: the whole loop on the 1,797 scanned digits that scikit-learn ships."""

import contextlib
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from howdah import report as reports
from howdah import up
from howdah.labelstudio import LabelStudio, LabelStudioError
from howdah.pachyderm import Problem, job_state
from howdah.services import ServiceError, Services
from howdah.show import console, percent
from pachd.client import Client, RpcError, parse_ref
from pachd.proto import pfs_pb2, pps_pb2

SPECS = Path(__file__).resolve().parent / "specs"  # a link in the repo, a folder in the installed package
ANNOTATORS = ("ada@example.com", "grace@example.com")
FIRST, SECOND = 600, 200  # images labelled in the two rounds
SHARED = 20  # every so many-th image is labelled by both
# in the first round these images are answered wrongly: 12 by Ada, 20 by Grace, all among their own
WRONG = {ANNOTATORS[0]: range(0, FIRST, 50), ANNOTATORS[1]: range(1, FIRST, 30)}
HANDS = 2  # requests that an annotator has under way at the same time
LABEL_CONFIG = (
    '<View><Image name="image" value="$image" maxWidth="320px"/><Choices name="digit" toName="image" choice="single">'
    + "".join(f'<Choice value="{digit}"/>' for digit in range(10))
    + "</Choices></View>"
)


def run(
    data: Path | None = None,
    pachd_address: str | None = None,
    keep: bool = False,
    report: Path = Path("demo-report.json"),
    as_json: bool = False,
    **options: Any,
) -> int:
    """Run the demo; `options` are those of `up.lay_out`. Returns the exit code, 130 after Ctrl-C.

    The report is written to `report` when everything worked.
    """
    out = console(stderr=as_json)
    folder = report.absolute().parent
    if not folder.is_dir() or not os.access(report if report.exists() else folder, os.W_OK):
        raise click.ClickException(f"the report {report} cannot be written: name another file with --report")
    folder = data or Path(tempfile.mkdtemp(prefix="howdah-demo-"))
    started = time.monotonic()
    layout = None
    report_written, code = False, 0
    try:
        with Services() as running:
            running.stop_on_signals(raising=True)
            ports = free_port(30650), free_port(9002), free_port(8080)
            layout = up.lay_out(folder, pachd_address, None, *ports, **options)
            services = up.services(layout)
            with layout.client(timeout=120) as client:
                for service in services:
                    if service.name != "pachd":
                        check_empty(client)
                    with step(out, f"starting {service.name}"):
                        running.start(service)
                answer = Demo(out, layout, client).play()
            answer["seconds"] = round(time.monotonic() - started, 1)
            report.write_text(json.dumps(answer, indent=2) + "\n")
            report_written = True
            if as_json:
                click.echo(json.dumps(answer, indent=2))
            else:
                show(out, answer)
            out.print(f"Report: {report}")
            if keep:
                login = f"login {layout.username}  password {layout.password}"
                out.print(f"\nLabel Studio  {layout.label_studio_url}  {login}", soft_wrap=True)
                out.print(f"mount-server  {layout.mount_url}  files {layout.mount_dir}")
                out.print(f"pachd         grpc://{layout.pachd_address}")
                out.print(f"data          {layout.data}\nEverything is left running. Ctrl-C stops it.", soft_wrap=True)
                dead = running.watch()
                if dead is not None:
                    raise ServiceError(f"{dead.name} ended{dead.tail()}")
    except (ServiceError, Problem, LabelStudioError, RpcError) as e:
        message = e.message if isinstance(e, Problem) else str(e)
        click.echo(f"Error: {message}\nLogs: {folder / 'logs'}", err=True)
        return 1
    except KeyboardInterrupt:
        if not report_written:
            with contextlib.suppress(OSError):  # the terminal may be closed
                click.echo("Stopped.", err=True)
            code = 130
    if data is None and not keep and layout is not None:
        remove(folder, layout.mount_dir)
    elif report_written and keep:
        with contextlib.suppress(OSError):
            click.echo(
                f"Stopped. `howdah up --data {folder}` goes on with it; delete that folder when it is of no use.",
                err=True,
            )
    return code


class Demo:
    """One play of the demo against running services."""

    def __init__(self, out: Console, layout: up.Layout, client: Client) -> None:
        self.out, self.layout, self.client = out, layout, client
        self.truth: dict[str, int] = {}

    def play(self) -> dict[str, Any]:
        """Everything but the start of the services; the report without its duration."""
        with step(self.out, "1,797 digit scans into images@master"):
            self.put_images()
        with step(self.out, "pipelines preprocess, train, evaluate"):
            self.create_pipelines()
        with contextlib.ExitStack() as stack:
            admin = stack.enter_context(LabelStudio(self.layout.label_studio_url))
            admin.log_in(self.layout.username, self.layout.password)
            with step(self.out, "two annotators join Label Studio"):
                people = {email: stack.enter_context(join(admin, email)) for email in ANNOTATORS}
            with step(self.out, "project with source and target storage, source Sync"):
                project, target = create_project(admin)
            tasks = admin.tasks(project)
            items = sorted(tasks)[: FIRST + SECOND]
            if len(tasks) != len(self.truth):
                raise Problem(f"Label Studio has {len(tasks)} tasks after the source Sync, not {len(self.truth)}")
            seconds = {}
            turns = assignments(items)
            first = [(who, n) for who, n in turns if n < FIRST]
            second = [(who, n) for who, n in turns if n >= FIRST]
            said = [(who, items[n], self.answer(who, items[n], n)) for who, n in first]
            wrong = [(who, item) for who, item, digit in said if digit != self.truth[item]]
            stated = ", ".join(f"{sum(w == who for w, _ in wrong)} by {who}" for who in ANNOTATORS)
            self.label(f"round 1: labelling ({FIRST} images; wrong on purpose: {stated})", people, tasks, said)
            commit, took = self.sync(people[ANNOTATORS[0]], target)
            seconds[commit] = took
            self.wait(commit)
            said = [(who, items[n], self.truth[items[n]]) for who, n in second]
            self.label(f"round 2: labelling ({SECOND} more images)", people, tasks, said)
            fixes = wrong[::2]
            self.label("round 2: correcting", people, tasks, ((w, i, self.truth[i]) for w, i in fixes), correct=True)
            commit, took = self.sync(people[ANNOTATORS[1]], target)
            seconds[commit] = took
            self.wait(commit)
            self.sync_nothing(people[ANNOTATORS[0]], target)
        answer: dict[str, Any] = {"rounds": reports.rounds(self.client, seconds)}
        answer["who_labelled"] = reports.who_labelled(self.client)
        answer["accuracy_before"] = reports.accuracy_before(self.client)
        with self.job_bars("rolling labels@master back") as progress:
            answer["rollback"], moved = reports.roll_back(self.client, progress)
        with step(self.out, "and forward again; its jobs run on in the background"):
            reports.rollback(self.client, parse_ref("labels@master").commit.branch, moved["from"]["commit"])
        return answer

    def put_images(self) -> None:
        """All digits as PNG files, in one commit."""
        from PIL import Image
        from sklearn.datasets import load_digits

        for name, what in (("images", "Scanned digits, 8 × 8 pixels."), ("labels", "Labels, one file per image.")):
            repo = parse_ref(name).commit.repo
            if not repo.name:
                repo = parse_ref(name).commit.branch.repo
            self.client.pfs.CreateRepo(pfs_pb2.CreateRepoRequest(repo=repo, description=what))
        digits = load_digits()

        def requests() -> Iterator[pfs_pb2.ModifyFileRequest]:
            yield pfs_pb2.ModifyFileRequest(set_commit=parse_ref("images@master").commit)
            for n, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
                item = f"digits/{n:04d}.png"
                self.truth[item] = int(digit)
                png = io.BytesIO()
                Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(png, "PNG")
                file = pfs_pb2.AddFile(path="/" + item)
                file.raw.value = png.getvalue()
                yield pfs_pb2.ModifyFileRequest(add_file=file)

        self.client.pfs.ModifyFile(requests())

    def create_pipelines(self) -> None:
        """The three specs as they lie in specs/."""
        for name in reports.PIPELINES:
            spec = (SPECS / f"{name}.json").read_text()
            request = pps_pb2.CreatePipelineV2Request(create_pipeline_request_json=spec)
            self.client.pps.CreatePipelineV2(request)

    def answer(self, who: str, item: str, n: int) -> int:
        """What an annotator says in the first round: the true digit, except for the stated few."""
        return (self.truth[item] + 1) % 10 if n in WRONG[who] else self.truth[item]

    def label(
        self,
        title: str,
        people: dict[str, LabelStudio],
        tasks: dict[str, int],
        answers: Iterable[tuple[str, str, int]],
        correct: bool = False,
    ) -> None:
        """Let everybody work at the same time: (annotator, item, digit) each."""
        work = list(answers)
        with bars(self.out) as progress:
            bar = progress.add_task(title, total=len(work))

            def one(entry: tuple[str, str, int]) -> None:
                who, item, digit = entry
                if correct:
                    people[who].correct(tasks[item], choice(digit))
                else:
                    people[who].annotate(tasks[item], choice(digit), 1.5)
                progress.advance(bar)

            with ThreadPoolExecutor(len(people) * HANDS) as pool:
                try:
                    for _ in pool.map(one, work):
                        pass
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        if not self.out.is_terminal:
            self.out.print(f"{title}: {len(work)} done")

    def sync(self, person: LabelStudio, target: int) -> tuple[str, float]:
        """Press Sync; the commit that labels@master is at then, and the seconds it took."""
        before = {info.commit.id for info in reports.label_commits(self.client)}
        with step(self.out, "Sync"):
            began = time.monotonic()
            person.sync(target, target=True)
            took = time.monotonic() - began
        made = [i.commit.id for i in reports.label_commits(self.client) if i.commit.id not in before]
        if len(made) != 1:
            raise Problem(f"Sync made {len(made)} commits on labels@master, not one")
        return made[0], took

    def sync_nothing(self, person: LabelStudio, target: int) -> None:
        """Press Sync once more, which must not make a commit."""
        head = reports.head(self.client, "labels")
        with step(self.out, "Sync with nothing new: no commit"):
            person.sync(target, target=True)
        if reports.head(self.client, "labels") != head:
            raise Problem("a Sync with nothing new made a commit on labels@master")

    def wait(self, commit: str) -> None:
        """Show the jobs of a commit until they are done."""
        with self.job_bars(f"jobs of labels@{commit[:12]}") as progress:
            reports.wait_for_jobs(self.client, commit, progress)

    @contextlib.contextmanager
    def job_bars(self, title: str) -> Iterator[Callable[[list[pps_pb2.JobInfo]], None]]:
        """One progress bar per job, in the order of the pipelines."""
        last: list[pps_pb2.JobInfo] = []
        self.out.print(title)
        with bars(self.out) as progress:
            tasks = {name: progress.add_task(f"  {name}: waits", total=None) for name in reports.PIPELINES}

            def update(jobs: list[pps_pb2.JobInfo]) -> None:
                last[:] = jobs
                for job in jobs:
                    done = job.data_processed + job.data_skipped + job.data_failed
                    name = job.job.pipeline.name
                    words = f"  {name}: {job_state(job)}, {job.data_processed} processed, {job.data_skipped} skipped"
                    progress.update(tasks[name], description=words, completed=done, total=job.data_total or None)

            yield update
        if not self.out.is_terminal:
            for job in sorted(last, key=lambda job: reports.PIPELINES.index(job.job.pipeline.name)):
                counts = f"{job.data_processed} processed, {job.data_skipped} skipped, {job.data_failed} failed"
                self.out.print(f"  {job.job.pipeline.name}: {job_state(job)}, {counts} of {job.data_total}")


def check_empty(client: Client) -> None:
    """Raise Problem when a pachd has such repos as the demo makes already."""
    repos = {info.repo.name for info in client.pfs.ListRepo(pfs_pb2.ListRepoRequest(type="user"))}
    if taken := sorted(repos & {"images", "labels", *reports.PIPELINES}):
        raise Problem(f"this pachd has a repo {taken[0]} already; the demo wants one without: name another --data")


def assignments(items: list[str]) -> list[tuple[str, int]]:
    """Who labels which image (by number): they take turns, and some images both label."""
    turns = []
    for n in range(len(items)):
        who = ANNOTATORS[n % 2]
        turns += [(person, n) for person in ANNOTATORS if person == who or n % SHARED == 1]
    return turns


def choice(digit: int) -> list[dict[str, Any]]:
    """An annotation's result, as Label Studio's own front end sends it."""
    return [{"from_name": "digit", "to_name": "image", "type": "choices", "value": {"choices": [str(digit)]}}]


def join(admin: LabelStudio, email: str) -> LabelStudio:
    """A new annotator, logged in, who has followed an invitation."""
    person = LabelStudio(admin.url)
    person.sign_up(admin.invitation(), email, secrets.token_urlsafe(12))
    return person


def create_project(admin: LabelStudio) -> tuple[int, int]:
    """A project with both storages whose images are imported; the IDs of the project and of the target."""
    project = admin.create_project("Digits", LABEL_CONFIG)
    source = admin.add_storage(project, False, title="images", repository="images@master", glob="/**")
    target = admin.add_storage(project, True, title="labels", repository="labels@master")
    admin.sync(source, target=False)
    return project, target


def free_port(wanted: int) -> int:
    """The usual port of a service, or any free one if that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((up.HOST, wanted))
        except OSError:
            with socket.socket() as other:
                other.bind((up.HOST, 0))
                return int(other.getsockname()[1])
    return wanted


def remove(folder: Path, mount: Path) -> None:
    """Remove the demo's data; never through a mount that is still there."""
    if os.path.ismount(mount):
        subprocess.run(["fusermount", "-uz", str(mount)], check=False, timeout=30)
    if not os.path.ismount(mount):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def step(out: Console, title: str) -> Iterator[None]:
    """One line per step, with how long it took."""
    began = time.monotonic()
    with out.status(title):
        yield
    out.print(f"{title}: {time.monotonic() - began:.1f} s")


def bars(out: Console) -> Progress:
    """Progress bars; nothing where nobody looks at a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=out, disable=not out.is_terminal)


def show(out: Console, answer: dict[str, Any]) -> None:
    """The report as sentences."""
    out.print()
    for n, entry in enumerate(answer["rounds"], 1):
        out.print(
            f"Round {n}: {entry['labels']} labels, {entry['commits_on_labels']} commit {entry['commit']} "
            f"by a Sync of {entry['sync_seconds']:.2f} s"
        )
        for job in entry["jobs"]:
            counts = f"{job['processed']} processed, {job['skipped']} skipped, {job['failed']} failed of {job['total']}"
            out.print(f"  {job['pipeline']:<10} {job['state']}: {counts}")
        out.print(f"  accuracy on held-out images: {percent(entry['accuracy'])}")
    who = answer["who_labelled"]
    out.print(f"Who labelled {who['path']}?  {', '.join(who['annotators'])}, {who['time']}, commit {who['commit']}")
    out.print(f"Accuracy before this round?  {percent(answer['accuracy_before'])}")
    back = answer["rollback"]
    out.print(
        f"Back to the last model?  labels@master at {back['to']}, accuracy {percent(back['accuracy'])}, history "
        f"{'kept' if back['history_kept'] else 'LOST'}; then forward again"
    )
    out.print(f"{answer['seconds']:.0f} s in all")
