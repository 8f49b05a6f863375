"""Text rules of references, addresses and label files: no server, no Django."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from label_studio_backend.canonical import digest, encode, iso, label_path
from label_studio_backend.mount_api import MountError, _plainly
from label_studio_backend.refs import (
    FileAddress,
    Ref,
    below,
    clean_path,
    clean_prefix,
    first_address,
    glob_of,
    mount_name,
    parse_address,
    parse_ref,
)

COMMIT = "0123456789ab4def8123456789abcdef"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("images", Ref("default", "images", "master", None)),
        ("images\n", Ref("default", "images", "master", None)),
        (" images@dev ", Ref("default", "images", "dev", None)),
        ("pets/images", Ref("pets", "images", "master", None)),
        ("pets/images@dev-2", Ref("pets", "images", "dev-2", None)),
        (f"images={COMMIT}", Ref("default", "images", None, COMMIT)),
        (f"pets/images@{COMMIT}", Ref("pets", "images", None, COMMIT)),
        ("edges.meta@master", Ref("default", "edges.meta", "master", None)),
    ],
)
def test_a_reference_is_read(text: str, expected: Ref) -> None:
    assert parse_ref(text) == expected
    assert parse_ref(text).pinned == (expected.commit is not None)
    assert parse_ref(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "required"),
        ("   ", "required"),
        ("a/b/c", '"a/b"'),
        ("/images", '""'),
        ("images@", '""'),
        ("images@a/b", '"a/b"'),
        ("images=123", '"123"'),
        ("images@master=1", '"master=1"'),
        ("im ages", '"im ages"'),
        ("http://127.0.0.1/images", "not a"),
        ("../images", '".."'),
        ("imagés", '"imagés"'),
    ],
)
def test_a_wrong_reference_is_refused_by_the_name_of_its_wrong_part(text: str, named: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_ref(text)
    assert named in str(refused.value)


@pytest.mark.parametrize("path", ["/a", "/cats/001.jpg", "/a b/c&d#e?.png", "/100%25/ü.png", "/a%2Fb"])
def test_an_address_is_read_back_as_it_was_written(path: str) -> None:
    address = FileAddress("default", "images", COMMIT, path)
    assert parse_address(str(address)) == address
    assert first_address({"text": "x", "nested": [{"image": str(address)}]}) == address


@pytest.mark.parametrize(
    "uri",
    [
        "s3://default/images",
        f"pachyderm://default/images/{COMMIT}/a",
        "pachyderm://default/images@master/a",
        f"pachyderm://default/images@{COMMIT}",
        f"pachyderm://default/images@{COMMIT}/",
        f"pachyderm://default/images@{COMMIT}/../../etc/passwd",
        f"pachyderm://default/images@{COMMIT}/a/%2e%2e/%2E%2E/b",
        f"pachyderm://default/images@{COMMIT}/a%00b",
        f"pachyderm://../images@{COMMIT}/a",
        f"pachyderm:///images@{COMMIT}/a",
    ],
)
def test_what_is_no_address_of_a_file_is_refused(uri: str) -> None:
    with pytest.raises(ValueError):
        parse_address(uri)
    assert first_address({"image": uri}) is None


def test_paths_have_one_form_and_never_lead_upwards() -> None:
    assert clean_path("a//b/") == "/a/b"
    for bad in ("", "/", "..", "/a/../b", "/a/./b", "a\0b"):
        with pytest.raises(ValueError):
            clean_path(bad)
    assert [clean_prefix(one) for one in (None, "", "/", " / ", "a/", "/a/b/")] == ["", "", "", "", "/a", "/a/b"]
    for bad in ("a*b", "a?", "[a]", "{a,b}", "é", "a/../b"):
        with pytest.raises(ValueError):
            clean_prefix(bad)
    assert below("/a/b", "") and below("/a/b", "/a") and not below("/ab/c", "/a") and not below("/a", "/a")


def test_the_glob_of_a_source() -> None:
    assert glob_of("", None, True) == "/**" and glob_of("", None, False) == "/*"
    assert glob_of("/cats", "", True) == "/cats/**" and glob_of("/cats", "*.png", True) == "/cats/*.png"
    assert glob_of("/cats", "/dogs/*", False) == "/dogs/*"


def test_mounts_of_different_references_have_different_names() -> None:
    refs = [
        *(Ref("default", "images", branch, None) for branch in ("master", "dev")),
        Ref("default", "images", None, COMMIT),
        Ref("pets", "images", "master", None),
        Ref("default", "images-master", "master", None),
    ]
    names = {mount_name(purpose, ref) for purpose in ("read", "labels") for ref in refs}
    assert len(names) == 2 * len(refs) and all("/" not in name for name in names)


def test_the_same_labels_are_the_same_bytes() -> None:
    text = encode({"b": [1, 2.5, None], "a": {"é": "ü", "c": True}})
    assert text == '{"a":{"c":true,"é":"ü"},"b":[1,2.5,null]}\n'
    assert text == encode(dict(reversed(json.loads(text).items())))
    assert digest(text) == digest(text + "") and len(digest(text)) == 32
    assert digest(text) != digest(text.replace("1", "2", 1))
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            encode({"lead_time": number})


def test_times_are_written_in_utc() -> None:
    moment = datetime(2024, 5, 6, 9, 8, 7, 120, tzinfo=timezone(timedelta(hours=2)))
    assert iso(moment) == "2024-05-06T07:08:07.000120Z"
    assert iso(datetime(2024, 5, 6, tzinfo=UTC)) == "2024-05-06T00:00:00Z" and iso(None) is None


def test_a_label_file_stands_where_its_item_does() -> None:
    assert label_path("", "/cats/001.jpg") == "/cats/001.jpg.json"
    assert label_path("/team", "/cats/001.jpg") == "/team/cats/001.jpg.json"


def test_a_target_that_a_pipeline_writes() -> None:
    words = "mount request: default/train@master is written by a pipeline: mount it read-only"
    with pytest.raises(MountError, match=r"^default/train@master is written by a pipeline\. Name a branch that only"):
        with _plainly(parse_ref("train@master")):
            raise MountError(words, 403, "read_only")
