"""The glob language, pattern by pattern."""

import pytest

from pachd.errors import PachError
from pachd.pfs import globs

TREE = ["/", "/cat/", "/cat/a.jpg", "/cat/b.jpg", "/dog/", "/dog/a.png", "/dog/puppy/", "/dog/puppy/a.jpg", "/root.txt"]


def matches(pattern: str, paths: list[str] = TREE) -> list[str]:
    glob = globs.compile(pattern)
    assert all(path.startswith(glob.prefix) for path in paths if glob.match(path))
    if glob.depth is not None:
        assert all(path.rstrip("/").count("/") == glob.depth for path in paths if glob.match(path) and path != "/")
    return [path for path in paths if glob.match(path)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/", ["/"]),
        ("", ["/"]),
        ("/*", ["/cat/", "/dog/", "/root.txt"]),
        ("*", ["/cat/", "/dog/", "/root.txt"]),
        ("/**", TREE[1:]),
        ("**", TREE[1:]),
        ("/*/*", ["/cat/a.jpg", "/cat/b.jpg", "/dog/a.png", "/dog/puppy/"]),
        ("/cat/", ["/cat/"]),
        ("/cat", ["/cat/"]),
        ("/**.jpg", ["/cat/a.jpg", "/cat/b.jpg", "/dog/puppy/a.jpg"]),
        ("/*/*.jpg", ["/cat/a.jpg", "/cat/b.jpg"]),
        ("/{cat,dog}/a.*", ["/cat/a.jpg", "/dog/a.png"]),
        ("/{cat/a,dog/a}.*", ["/cat/a.jpg", "/dog/a.png"]),
        ("/[cd]*", ["/cat/", "/dog/"]),
        ("/[!c]*", ["/dog/", "/root.txt"]),
        ("/[a-c]*", ["/cat/"]),
        ("/[[:alpha:]]*.txt", ["/root.txt"]),
        ("/?at", ["/cat/"]),
        ("/*(cat|dog)", ["/cat/", "/dog/"]),
        ("/+(cat|dog)", ["/cat/", "/dog/"]),
        ("/@(cat)/*", ["/cat/a.jpg", "/cat/b.jpg"]),
        ("/?(cat)", ["/cat/"]),
        ("/!(cat)", ["/dog/", "/root.txt"]),
        ("/!(cat|root.txt)", ["/dog/"]),
        ("/!(cat)/*", ["/dog/a.png", "/dog/puppy/"]),
        ("/dog/!(*.png)", ["/dog/puppy/"]),
        ("/*/!(a).jpg", ["/cat/b.jpg"]),
        ("/dog/**", ["/dog/a.png", "/dog/puppy/", "/dog/puppy/a.jpg"]),
        ("/nope*", []),
        ("/(cat)/*", ["/cat/a.jpg", "/cat/b.jpg"]),
        ("/dog/*/", ["/dog/a.png", "/dog/puppy/"]),
        ("/**/a.jpg", ["/cat/a.jpg", "/dog/puppy/a.jpg"]),
        ("root.txt", ["/root.txt"]),
        ("/*.{txt,jpg}", ["/root.txt"]),
        ("/root.tx[t]", ["/root.txt"]),
        ("/root\\.txt", ["/root.txt"]),
        ("/{a", []),
        ("/(cat", []),
    ],
)
def test_patterns(pattern: str, found: list[str]) -> None:
    assert matches(pattern) == found


@pytest.mark.parametrize("pattern", ["/[", "/[a", "/a[!"])
def test_malformed(pattern: str) -> None:
    with pytest.raises(PachError, match="unexpected end of input"):
        globs.compile(pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "template", "result"),
    [
        ("/(*).txt", "/a.txt", "$1", "a"),
        ("/(*)-(*)", "/x-y/", "${2}$1", "yx"),
        ("/@(a|b)?(c)", "/a", "$1|$2", "a|"),
        ("/*/(**)", "/p/q/r", "$1", "q/r"),
        ("/!(x)/(*)", "/y/z", "$1$2", "yz"),
        ("/(*)", "/a", "$2", "$2"),
        ("/(*)", "/a", "$$1", "$1"),
        ("/+(ab)", "/abab", "$1", "abab"),
    ],
)
def test_captures(pattern: str, path: str, template: str, result: str) -> None:
    assert globs.compile(pattern).replace(path, template) == result
