"""Access control below the wire: tokens, roles, bindings, groups, and what they add up to."""

from pathlib import Path

import pytest

from pachd import upkeep
from pachd.auth import activation, bindings, groups, permissions, pipelines, roles, tokens
from pachd.auth.resources import THE_CLUSTER, Resource, project_resource, repo_resource
from pachd.errors import Internal, NotFound, PachError, Unauthenticated
from pachd.pfs import projects, repos, writing
from pachd.proto import auth_pb2
from pachd.proto.auth_pb2 import Permission as P
from pachd.store import Store, system
from pachd.types import Repo

IMAGES = Repo("default", "images")
ON_IMAGES = repo_resource(IMAGES)


@pytest.fixture
def active(store: Store) -> Store:
    """A store with a repo and access control on."""
    with writing(store) as txn:
        projects.ensure_default(txn)
        repos.create_repo(txn, IMAGES)
        activation.activate(txn, "iamroot")
        activation.activate_repos(txn)
    return store


def missing(store: Store, who: str, resource: Resource, *wanted: int) -> list[int]:
    with store.read() as snapshot:
        return permissions.authorize(snapshot, who, resource, wanted).missing


def test_off_until_activated(store: Store) -> None:
    with store.read() as snapshot:
        assert not bindings.active(snapshot)
        with pytest.raises(bindings.NotActivated, match=r"^the auth service is not activated$"):
            tokens.identify(snapshot, "x")
    with writing(store) as txn:
        projects.ensure_default(txn)
        repos.create_repo(txn, IMAGES)
        assert not bindings.exists(txn, ON_IMAGES)  # nobody owns what is made without access control


def test_activation_and_its_end(active: Store) -> None:
    with active.read() as snapshot:
        assert tokens.identify(snapshot, "iamroot") == ("pach:root", None)
        assert bindings.binding(snapshot, THE_CLUSTER) == {
            "pach:root": ["clusterAdmin"],
            "internal:auth-server": ["clusterAdmin"],
            "allClusterUsers": ["projectCreator"],
        }
        assert bindings.binding(snapshot, project_resource("default")) == {"allClusterUsers": ["projectWriter"]}
        assert bindings.exists(snapshot, ON_IMAGES) and bindings.binding(snapshot, ON_IMAGES) == {}
    with writing(active) as txn, pytest.raises(PachError, match="already activated"):
        activation.activate(txn)
    with writing(active) as txn:
        activation.deactivate(txn)
    with active.read() as snapshot:
        assert not bindings.active(snapshot)
        assert snapshot.db.execute("SELECT count(*) FROM auth_tokens").fetchone()[0] == 0
        assert snapshot.db.execute("SELECT count(*) FROM auth_roles").fetchone()[0] == 0


def test_tokens_are_kept_as_hashes_only(tmp_path: Path) -> None:
    with upkeep.open_folder(tmp_path) as store:
        with writing(store) as txn:
            activation.activate(txn, "a-root-token-to-look-for")
            robot = tokens.make_robot(txn, "robot:alice", 0)
            pipeline = pipelines.token(txn, Repo("default", "p"))
        assert len(robot) == 32 and robot != pipeline
        with store.read() as snapshot:
            assert tokens.identify(snapshot, robot).subject == "robot:alice"
            assert tokens.identify(snapshot, pipeline).subject == "pipeline:default/p"
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for secret in ("a-root-token-to-look-for", robot, pipeline):
        assert secret.encode() not in written
        assert tokens.digest(secret).encode() in written


def test_expiry(active: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with writing(active) as txn:
        short, long = tokens.make(txn, "robot:a", 10), tokens.make(txn, "robot:a", 3600)
        for_ever = tokens.make(txn, "robot:a")
    later = system.now_ns() + 11 * tokens.SECOND
    monkeypatch.setattr(system, "now_ns", lambda: later)
    with active.read() as snapshot:
        with pytest.raises(Internal, match="token expiration is in the past"):
            tokens.identify(snapshot, short)
        assert tokens.identify(snapshot, long).expiration
        assert tokens.identify(snapshot, for_ever).expiration is None
    with writing(active) as txn:
        assert tokens.delete_expired(txn) == 1
        with pytest.raises(Unauthenticated, match="corrupted or has expired"):
            tokens.identify(txn, short)
        assert tokens.revoke_all(txn, "robot:a") == 2
    with writing(active) as txn:  # a time that no clock reaches is no error
        assert tokens.identify(txn, tokens.make(txn, "robot:a", (1 << 63) - 1)).expiration == (1 << 63) - 1


def test_extract_and_restore(active: Store) -> None:
    with writing(active) as txn:
        token, gone = tokens.make_robot(txn, "alice", 0), tokens.make_robot(txn, "bob", 60)
        taken = tokens.extract(txn)
        assert [info.subject for info in taken] == ["robot:alice", "robot:bob"]
        with pytest.raises(PachError, match="cannot overwrite existing token with same hash"):
            tokens.restore(txn, taken[0])
        tokens.revoke_user(txn, "robot:alice")
        tokens.revoke(txn, gone)
        for info in taken:
            tokens.restore(txn, info)
        assert tokens.identify(txn, token).subject == "robot:alice"
        assert tokens.identify(txn, gone).expiration
        taken[1].expiration.FromNanoseconds(1)
        with pytest.raises(Internal, match="in the past"):
            tokens.restore(txn, taken[1])
        with pytest.raises(PachError, match="cannot revoke tokens for pach: users"):
            tokens.revoke_user(txn, "pach:root")
        with pytest.raises(PachError, match="robot names cannot contain colons"):
            tokens.make_robot(txn, "user:eve", 0)


def test_roles_on_cluster_project_and_repo_add_up(active: Store) -> None:
    alice = "robot:alice"
    assert missing(active, alice, ON_IMAGES, P.REPO_READ) == [P.REPO_READ]
    for resource in (ON_IMAGES, project_resource("default"), THE_CLUSTER):
        with writing(active) as txn:
            bindings.set_roles(txn, resource, alice, ["repoReader"])
        assert missing(active, alice, ON_IMAGES, P.REPO_READ, P.REPO_WRITE) == [P.REPO_WRITE]
        with writing(active) as txn:
            bindings.set_roles(txn, resource, alice, [])
    assert missing(active, alice, ON_IMAGES, P.REPO_READ) == [P.REPO_READ]
    assert missing(active, "pach:root", ON_IMAGES, *P.values()) == [P.PERMISSION_UNKNOWN]


def test_groups_and_everybody(active: Store) -> None:
    with writing(active) as txn:
        groups.set_groups(txn, "user:ann", ["group:labelers", "group:guests"])
        groups.modify_members(txn, "group:labelers", ["robot:bob", "robot:eve"], ["robot:eve"])
        bindings.set_roles(txn, ON_IMAGES, "group:labelers", ["repoWriter"])
    assert missing(active, "user:ann", ON_IMAGES, P.REPO_WRITE) == []
    assert missing(active, "robot:bob", ON_IMAGES, P.REPO_WRITE) == []
    assert missing(active, "robot:eve", ON_IMAGES, P.REPO_WRITE) == [P.REPO_WRITE]
    with writing(active) as txn:
        assert groups.groups_of(txn, "user:ann") == ["group:guests", "group:labelers"]
        assert groups.users(txn, "group:labelers") == ["robot:bob", "user:ann"]
        assert groups.users(txn) == ["robot:bob", "robot:eve", "user:ann"]
        with pytest.raises(NotFound, match="groups group:none not found"):
            groups.users(txn, "group:none")
        with pytest.raises(PachError, match="subject has no prefix"):
            groups.set_groups(txn, "ann", [])
        with pytest.raises(PachError, match="subject has unrecognized prefix: elf:"):
            groups.modify_members(txn, "group:g", ["elf:ann"], [])
        groups.set_groups(txn, "user:ann", [])
        bindings.set_roles(txn, ON_IMAGES, "allClusterUsers", ["repoReader"])
    assert missing(active, "user:ann", ON_IMAGES, P.REPO_WRITE) == [P.REPO_WRITE]
    assert missing(active, "user:ann", ON_IMAGES, P.REPO_READ) == []


def test_spec_repos_are_for_everybody_to_read(active: Store) -> None:
    spec = repo_resource(Repo("default", "images", "spec"))
    assert missing(active, "robot:anybody", spec, P.REPO_READ) == []
    assert missing(active, "robot:anybody", spec, P.REPO_READ, P.REPO_WRITE) == [P.REPO_WRITE]
    with (
        active.read() as snapshot,
        pytest.raises(permissions.NotAuthorized, match=r"\[REPO_WRITE\] on REPO def"),
    ):
        permissions.require(snapshot, "robot:anybody", spec, P.REPO_WRITE)


def test_what_is_not_there(active: Store) -> None:
    nowhere = repo_resource(Repo("default", "nowhere"))
    with active.read() as snapshot:
        permissions.require(snapshot, "pach:root", nowhere, P.REPO_READ)  # an admin hears it from pfs
        with pytest.raises(bindings.NoRoleBinding, match="^no role binding exists for REPO default/nowhere$"):
            permissions.require(snapshot, "robot:a", nowhere, P.REPO_READ)
        with pytest.raises(bindings.NoRoleBinding, match="^no role binding exists for PROJECT none$"):
            permissions.require(snapshot, "robot:a", repo_resource(Repo("none", "r")), P.REPO_READ)
        with pytest.raises(PachError, match="invalid resource name images"):
            permissions.require(snapshot, "robot:a", Resource(auth_pb2.REPO, "images"), P.REPO_READ)
    with writing(active) as txn, pytest.raises(PachError, match='unknown role "repoKing"'):
        bindings.set_roles(txn, ON_IMAGES, "robot:a", ["repoKing"])


def test_owners_come_and_go_with_what_they_own(active: Store) -> None:
    with writing(active) as txn:
        txn.state["principal"] = "robot:alice"
        projects.create_project(txn, "zoo")
        for kind in ("user", "spec", "meta"):
            repos.create_repo(txn, Repo("zoo", "cats", kind))
    cats = repo_resource(Repo("zoo", "cats"))
    with active.read() as snapshot:
        assert bindings.binding(snapshot, project_resource("zoo")) == {"robot:alice": ["projectOwner"]}
        assert bindings.binding(snapshot, cats) == {"robot:alice": ["repoOwner"]}
        assert projects.inspect_project(snapshot, "zoo").created_by == "robot:alice"
    with writing(active) as txn:
        projects.delete_project(txn, "zoo", force=True)
    with active.read() as snapshot:
        for resource in (cats, repo_resource(Repo("zoo", "cats", "spec")), project_resource("zoo")):
            assert not bindings.exists(snapshot, resource)


def test_pipelines_have_what_they_need_and_lose_it(active: Store) -> None:
    out, other = Repo("default", "edges"), Repo("default", "other")
    with writing(active) as txn:
        repos.create_repo(txn, out)
        repos.create_repo(txn, other)
        pipelines.connect(txn, out, [IMAGES, other])
        token = pipelines.token(txn, out)
    name = "pipeline:default/edges"
    assert missing(active, name, ON_IMAGES, P.REPO_READ, P.REPO_WRITE) == [P.REPO_WRITE]
    assert missing(active, name, repo_resource(out), P.REPO_WRITE) == []
    with writing(active) as txn:
        pipelines.connect(txn, out, [IMAGES])
        pipelines.token(txn, out)
        with pytest.raises(Unauthenticated):
            tokens.identify(txn, token)
    assert missing(active, name, repo_resource(other), P.REPO_READ) == [P.REPO_READ]
    with writing(active) as txn:
        pipelines.disconnect(txn, out)
    assert missing(active, name, ON_IMAGES, P.REPO_READ) == [P.REPO_READ]


def test_every_role_is_made_of_permissions_that_exist() -> None:
    for role in roles.ROLES.values():
        assert len(set(role.permissions)) == len(role.permissions)
        assert set(role.permissions) <= set(P.values())
    everything = set(P.values()) - {P.PERMISSION_UNKNOWN}
    assert set(roles.role("clusterAdmin").permissions) == everything
