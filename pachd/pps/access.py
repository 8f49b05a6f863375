"""What a pipeline may do while access control is active: read its inputs, write its output and its cron repos."""

from pachd.auth import activation, bindings, tokens
from pachd.auth import pipelines as principals
from pachd.pps import inputs
from pachd.proto import pps_pb2
from pachd.store import Txn
from pachd.types import Repo


def output(pipeline: pps_pb2.Pipeline) -> Repo:
    """Return the output repo of a pipeline, by which access control knows it."""
    return Repo(pipeline.project.name or "default", pipeline.name)


def connect(txn: Txn, info: pps_pb2.PipelineInfo) -> None:
    """Give a pipeline the roles that its spec takes, and none besides."""
    reads, writes = [], []
    for node in inputs.walk(info.details.input):
        if node.HasField("pfs"):
            reads.append(Repo(node.pfs.project or info.pipeline.project.name, node.pfs.repo))
        elif node.HasField("cron"):
            writes.append(Repo(node.cron.project or info.pipeline.project.name, node.cron.repo))
    principals.connect(txn, output(info.pipeline), reads, writes)


def connect_all(txn: Txn) -> None:
    """Give the pipelines of earlier times their roles."""
    rows = txn.db.execute(
        "SELECT v.info FROM pps_pipelines p JOIN pps_versions v ON v.pipeline = p.pk WHERE v.version = p.version"
    ).fetchall()
    for row in rows:
        connect(txn, pps_pb2.PipelineInfo.FromString(row["info"]))


def bootstrap(txn: Txn, root_token: str) -> None:
    """Make sure at the start that access control is active, for everything that is there, with this root token."""
    if bindings.active(txn):
        tokens.rotate_root(txn, root_token)
        return
    activation.activate(txn, root_token)
    activation.activate_repos(txn)
    connect_all(txn)


def disconnect(txn: Txn, pipeline: pps_pb2.Pipeline) -> None:
    """Take all roles and tokens from a pipeline that is deleted."""
    principals.disconnect(txn, output(pipeline))


def token(txn: Txn, pipeline: pps_pb2.Pipeline) -> str:
    """Return a token for a pipeline's code, in place of earlier ones; "" while access control is off."""
    return principals.token(txn, output(pipeline))
