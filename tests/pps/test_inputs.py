"""Inputs and datums: the algebra, against IDs that a real Pachyderm computed."""

import json
import re

import pytest

from pachd.errors import PachError
from pachd.pps import datums, inputs, spec
from pachd.pps.datums import Found
from pachd.proto import pps_pb2
from pachd.types import Commit

FILES = {
    "images": ["/a.png", "/b.png", "/c.png", "/dir/x-1.png", "/dir/x-2.png", "/dir/y-1.png"],
    "labels": ["/b.json", "/c.json", "/d.json"],
}


def glob(leaf):
    from pachd.pfs import globs

    paths = set(FILES[leaf.repo]) | {"/dir/" for p in FILES[leaf.repo] if p.startswith("/dir/")} | {"/"}
    pattern = globs.compile(leaf.glob)
    found = [Found(p, 1, p.encode(), "default", 1) for p in sorted(paths) if pattern.match(p)]
    return Commit(datums.repo_of(leaf), "0" * 32), found


def make(**tree):
    from google.protobuf import json_format

    node = json_format.ParseDict(tree, pps_pb2.Input())
    inputs.fill(node, "p", "default")
    inputs.validate(node, "default")
    return [(d.id, [f.path for f in d.files]) for d in datums.create(node, glob)]


def leg(repo, pattern, **more):
    return {"pfs": {"repo": repo, "glob": pattern, **more}}


def cron(spec):
    return {"cron": {"name": "t", "spec": spec}}


def test_ids_are_pachyderms_and_sorted():
    assert make(**leg("images", "/*")) == [
        ("0c91a4a23e74296d18b84e257b4276d22a4d4c5f6792de01d7aaac97906ff827", ["/dir/"]),
        ("724324323f90cfd16c79923f77318dc3af1cba94197f11d5258eb1c54f0e5b2b", ["/b.png"]),
        ("a25f080cce031acaebf116aff2c95bb9ec8667a6c3a6ea4446dd86f515a7eb92", ["/c.png"]),
        ("c798638147de36991f56b74abcef483095a536a3cee1e395b04cfd6b39a1a6b4", ["/a.png"]),
    ]
    assert make(**leg("images", "/"))[0] == ("2a529329b50b57b5e8d4f6020d9d4c5a588c0c81f2825c3dc373276fb1b022cf", ["/"])


def test_join_keeps_what_both_have():
    found = make(join=[leg("images", "/(*).png", joinOn="$1"), leg("labels", "/(*).json", joinOn="$1")])
    assert found[0] == (
        "7ff09deb8856141b781c69f6c35cfbfafef8e65a15be47ccd4d5c9876fc71779",
        ["/b.png", "/b.json"],
    )
    assert len(found) == 2


def test_outer_join_keeps_the_rest_of_its_leg():
    found = make(join=[leg("images", "/(*).png", joinOn="$1", outerJoin=True), leg("labels", "/(*).json", joinOn="$1")])
    assert sorted(files for _, files in found) == [["/a.png"], ["/b.png", "/b.json"], ["/c.png", "/c.json"]]


def test_group_orders_its_files_by_datum_id():
    assert make(group=[leg("images", "/dir/(*)-(*).png", groupBy="$1")]) == [
        ("14a3235c013799d5beff4704209ac2e9b7c8239bcae614253ff0c4a811da503c", ["/dir/y-1.png"]),
        ("535729b31d2b13f6e86a03dbf28b40321725ad56772908be47e3bfb3e5020546", ["/dir/x-2.png", "/dir/x-1.png"]),
    ]


def test_cross_and_union():
    assert len(make(cross=[leg("images", "/*"), leg("labels", "/*")])) == 12
    assert len(make(union=[leg("images", "/*", name="x"), leg("labels", "/*", name="x")])) == 7


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (leg("images", ""), "input must specify a glob"),
        ({"pfs": {"glob": "/*"}}, "input must specify a name"),
        ({"cross": []}, "no input set"),
        (leg("images", "/*", name="out"), "input cannot be named out"),
        ({"cross": [leg("images", "/*"), leg("images", "/")]}, 'name "images" was used more than once'),
        (leg("images", "/*", s3=True), "inputs that set 's3' to 'true' must also set"),
        (cron(""), "Empty spec string"),
        (cron("61 * * * *"), "End of range (61) above maximum (59): 61"),
        (cron("* * 0 * *"), "Beginning of range (0) below minimum (1): 0"),
        (cron("9-3 * * * *"), "Beginning of range (9) beyond end of range (3): 9-3"),
        (cron("* * * * soon"), 'Failed to parse int from soon: strconv.Atoi: parsing "soon": invalid syntax'),
        (cron("*/0 * * * *"), "Step of range should be a positive number: */0"),
        (cron("@every 5"), 'Failed to parse duration @every 5: time: missing unit in duration "5"'),
        (cron("not cron"), "error parsing cron-spec: Expected exactly 5 fields, found 2"),
    ],
)
def test_refused(tree, words):
    with pytest.raises(PachError, match=re.escape(words)):
        make(**tree)


def test_unknown_fields_are_named():
    with pytest.raises(PachError, match=r'unknown field "transform\.comand"'):
        spec.effective({"pipeline": {"name": "p"}, "transform": {"comand": ["true"]}})
    with pytest.raises(PachError, match=r'unknown field "bogus"'):
        spec.effective({"pipeline": {"name": "p"}, "bogus": 1})


def test_numbers_of_enums_are_shown_as_names():
    text = spec.effective({"tolerations": [{"key": "a", "operator": 1}, {"key": "b", "operator": "EQUAL"}]})[1]
    assert [each["operator"] for each in json.loads(text)["tolerations"]] == ["EXISTS", "EQUAL"]


def test_a_users_value_wins_and_null_deletes():
    request, text = spec.effective(
        {"pipeline": {"name": "p"}, "datum_tries": "5", "resource_requests": None}, spec.CLUSTER
    )
    assert request.datum_tries == 5
    assert not request.HasField("resource_requests")
    assert request.sidecar_resource_requests.memory == "256Mi"
    assert '"outputBranch":"master"' in text
