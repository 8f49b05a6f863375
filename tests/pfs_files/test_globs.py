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
        ("/root\\.txt", []),
        ("/{root}\\.txt", ["/root.txt"]),
        ("/{a", []),
        ("/(cat", ["/cat/"]),
        ("/{cat,dog", ["/cat/", "/dog/"]),
        ("/{(ca)t,dog}", ["/dog/"]),
        ("/{(ca,ro)t}", []),
        ("/({cat)}", []),
        ("/(cat}|dog", ["/dog/"]),
        ("/{r@x,root.txt}", []),
        ("/{x@,(cat", []),
        ("/{cat,}", ["/cat/"]),
        ("/!(ca)/*", ["/dog/a.png", "/dog/puppy/"]),
        ("/!(c)*", ["/dog/", "/root.txt"]),
        ("/!(c)?", ["/cat/", "/dog/", "/root.txt"]),
        ("/!(cat)[g]", ["/dog/"]),
        ("/dog[!x]puppy", ["/dog/puppy/"]),
        ("/*[!x]*", [path for path in TREE if 1 <= path.rstrip("/").count("/") <= 2]),
        ("/[c!a]*", ["/dog/", "/root.txt"]),
        ("/[[:alpha:]!]*", []),
        ("/[\\c\\d]*", ["/cat/", "/dog/"]),
        ("/**(c|a)t", ["/cat/", "/root.txt"]),
        ("/?(c)at", ["/cat/"]),
        ("/ca+t", []),
        ("/cat|dog", []),
    ],
)
def test_patterns(pattern: str, found: list[str]) -> None:
    assert matches(pattern) == found


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        *((pattern, "unexpected end of input") for pattern in ("/[", "/[a", "/a[!", "/[[:alpha:]", "/[\\]")),
        ("/^(cat)", "unimplemented quatifier ^"),
        ("/a.[]", "error parsing regexp: unterminated [] set in `\\A/a\\.[]\\z`"),
        ("/[z-a]", "error parsing regexp: [z-a] range in reverse order in `\\A/[z-a]\\z`"),
    ],
)
def test_malformed(pattern: str, error: str) -> None:
    with pytest.raises(PachError) as caught:
        globs.compile(pattern)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("pattern", "path", "template", "result"),
    [
        ("/(*).txt", "/a.txt", "$1", "a"),
        ("/(*)-(*)", "/x-y/", "${2}$1", "yx"),
        ("/@(a|b)?(c)", "/a", "$1|$2", "a|"),
        ("/*/(**)", "/p/q/r", "$1", "q/r"),
        ("/!(x)/(*)", "/y/z", "$1$2", "yz"),
        ("/(*)", "/a", "$2|$0", "|/a"),
        ("/!((x))/(*)", "/y/z", "$1$2$3", "yz"),
        ("/(a)", "/b", "<$1>", "<>"),
        ("/(*)", "/a", "$$1", "$1"),
        ("/+(ab)", "/abab", "$1", "abab"),
    ],
)
def test_captures(pattern: str, path: str, template: str, result: str) -> None:
    assert globs.compile(pattern).replace(path, template) == result
