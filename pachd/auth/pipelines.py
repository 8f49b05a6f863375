"""Pipelines as users: each may read its inputs and write its output, and nothing else."""

from collections.abc import Iterable

from pachd.auth import bindings, tokens
from pachd.auth.resources import repo_resource
from pachd.auth.roles import REPO_READER, REPO_WRITER
from pachd.auth.subjects import PIPELINE
from pachd.store import Txn
from pachd.types import Repo


def subject(output: Repo) -> str:
    """Return the principal of the pipeline with this output repo."""
    return f"{PIPELINE}{output.project}/{output.name}"


def connect(txn: Txn, output: Repo, reads: Iterable[Repo], writes: Iterable[Repo] = ()) -> None:
    """Give a pipeline its roles on its inputs, its cron repos (`writes`) and its output, and take back all others."""
    if not bindings.active(txn):
        return
    name = subject(output)
    txn.db.execute("DELETE FROM auth_roles WHERE principal=?", (name,))
    wanted = {repo_resource(repo._replace(type="user")): REPO_READER for repo in reads}
    wanted |= {repo_resource(repo._replace(type="user")): REPO_WRITER for repo in (*writes, output)}
    for resource, role in wanted.items():
        if bindings.exists(txn, resource):
            bindings.set_roles(txn, resource, name, [role])


def disconnect(txn: Txn, output: Repo) -> None:
    """Take all roles and tokens from a pipeline that is deleted."""
    txn.db.execute("DELETE FROM auth_roles WHERE principal=?", (subject(output),))
    tokens.revoke_all(txn, subject(output))


def token(txn: Txn, output: Repo) -> str:
    """Return a token for a pipeline's code, which ends the ones made before; "" while access control is off.

    As only hashes are kept, whoever starts the code asks for a token each time.
    """
    if not bindings.active(txn):
        return ""
    tokens.revoke_all(txn, subject(output))
    return tokens.make(txn, subject(output))
