"""Every command, option, route, make target and environment variable that a person can meet is in the docs."""

import argparse
import re
from collections.abc import Iterator

import click
import pytest

from tests.processes import ROOT


def text(*names: str) -> str:
    return "\n".join((ROOT / name).read_text() for name in names)


EVERYTHING = [str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").glob("*.md"))] + ["README.md"]


def mentioned(word: str, where: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", where) is not None


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for sub, child in command.commands.items():
            yield from commands(child, f"{name} {sub}")


def click_words(command: click.Command, name: str) -> Iterator[str]:
    for full, each in commands(command, name):
        if full != name:
            yield full
        for parameter in each.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("help", "version"):
                yield max(parameter.opts, key=len)


def test_howdah() -> None:
    from howdah.cli import main

    where = text("docs/cli.md", "docs/operations.md", "README.md")
    missing = [word for word in click_words(main, "howdah") if not mentioned(word, where)]
    assert not missing, f"not in docs/cli.md: {missing}"


def test_pachd() -> None:
    from pachd.__main__ import main

    where = text("docs/operations.md")
    missing = [word for word in click_words(main, "pachd") if not mentioned(word, where)]
    assert not missing, f"not in docs/operations.md: {missing}"


def test_mount_server_options() -> None:
    from mount_server.__main__ import main

    where = text("docs/mount-server.md")
    missing = [word for word in click_words(main, "mount-server") if not mentioned(word, where)]
    assert not missing, f"not in docs/mount-server.md: {missing}"


def test_label_studio_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from label_studio_backend import __main__ as backend

    options: list[str] = []
    original = argparse.ArgumentParser.add_argument

    def note(self: argparse.ArgumentParser, *names: str, **more: object) -> argparse.Action:
        options.extend(n for n in names if n.startswith("--"))
        return original(self, *names, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", note)
    backend._arguments(["--data-dir", "somewhere"])
    found = [o for o in options if o != "--help"]
    assert "--data-dir" in found
    missing = [word for word in found if not mentioned(word, text("docs/label-studio.md"))]
    assert not missing, f"not in docs/label-studio.md: {missing}"


def test_mount_server_routes() -> None:
    source = text("mount_server/http_api.py")
    routes = set(re.findall(r"Route\(\s*\"([^\"]+)\"", source))
    assert {"/health", "/_commit", "/_stage"} <= routes
    where = text("docs/mount-server.md")
    missing = sorted(r for r in routes if not re.search(rf"{re.escape(r)}(?![\w/])", where))
    assert not missing, f"not in docs/mount-server.md: {missing}"


def test_label_studio_routes() -> None:
    source = text("label_studio_backend/urls.py")
    where = text("docs/label-studio.md")
    for prefix in re.findall(r"r\"\^(api/storages[^\"]*)\"", source):
        assert "/" + prefix in where, prefix
    for tail in re.findall(r"\+ r\"/(\w+)/\?\$\"", source):
        assert f"/{tail}" in where, tail
    for page in re.findall(r"re_path\(r\"\^(howdah/[\w\\.]+)\$\"", source):
        assert "/" + page.replace("\\", "") in where, page


def test_environment_variables() -> None:
    names: set[str] = set()
    for package in ("pachd", "mount_server", "howdah", "label_studio_backend"):
        for file in (ROOT / package).rglob("*.py"):
            names |= set(re.findall(r"\bHOWDAH_[A-Z_]+\b", file.read_text()))
    missing = sorted(n for n in names if not mentioned(n, text(*EVERYTHING)))
    assert not missing, f"in no document: {missing}"


def test_make_targets() -> None:
    documented = re.findall(r"^([a-z-]+):.*## ", text("Makefile"), re.MULTILINE)
    phony = {word for line in re.findall(r"^\.PHONY: (.*)$", text("Makefile"), re.MULTILINE) for word in line.split()}
    assert phony - {"check-proto"} <= set(documented), "make help leaves out a target"


def test_links_lead_somewhere() -> None:
    for name in EVERYTHING:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text(name)):
            assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"
