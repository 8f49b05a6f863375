"""The steps of the README with python-pachyderm 7.6, run in its own environment: prints what it saw as JSON.

usage: python_pachyderm_steps.py HOST PORT PREFIX
"""

import io
import json
import sys

import python_pachyderm
from python_pachyderm.proto.v2.pfs import pfs_pb2
from python_pachyderm.proto.v2.pps import pps_pb2

host, port, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = python_pachyderm.Client(host=host, port=port)
seen = {"version": client.get_remote_version().major}
images, copies = prefix + "images", prefix + "copies"

# repos and files
client.create_repo(images, description="pictures")
seen["repo"] = client.inspect_repo(images).description
with client.commit(images, "master") as first:
    client.put_file_bytes(first, "/cats/1.txt", b"tabby")
    client.put_file_bytes(first, "/cats/2.txt", io.BytesIO(b"siamese"))
    client.put_file_bytes(first, "/dogs/1.txt", b"beagle")
    client.put_file_bytes(first, "/empty", b"")
client.wait_commit(first)
seen["first"] = first.id
seen["get"] = client.get_file((images, "master"), "/cats/1.txt").read().decode()
seen["get_empty"] = client.get_file((images, "master"), "/empty").read().decode()
seen["get_from"] = client.get_file((images, "master"), "/cats/1.txt", offset=2).read().decode()
seen["list"] = [
    [f.file.path, f.file_type == pfs_pb2.DIR, f.size_bytes] for f in client.list_file((images, "master"), "/")
]
seen["walk"] = [f.file.path for f in client.walk_file((images, "master"), "/")]
seen["glob"] = [f.file.path for f in client.glob_file((images, "master"), "/*/1.txt")]
seen["exists"] = [client.path_exists((images, "master"), p) for p in ("/cats/1.txt", "/cats/9.txt")]
with client.get_file_tar((images, "master"), "/cats/") as tar:
    seen["tar"] = {m.name: tar.extractfile(m).read().decode() for m in tar if m.isfile()}

# a second version: overwrite, append, delete, copy; and what changed
with client.modify_file_client((images, "master")) as change:
    change.put_file_from_bytes("/cats/1.txt", b"maine coon")
    change.put_file_from_bytes("/cats/2.txt", b" cat", append=True)
    change.delete_file("/dogs/")
    change.copy_file((images, first.id), "/dogs/1.txt", "/hounds/1.txt")
seen["second"] = client.inspect_branch(images, "master").head.id
seen["diff"] = [
    [d.new_file.file.path, d.old_file.file.path]
    for d in client.diff_file((images, "master"), "/", (images, first.id), "/")
]
seen["appended"] = client.get_file((images, "master"), "/cats/2.txt").read().decode()
seen["copied"] = client.get_file((images, "master"), "/hounds/1.txt").read().decode()
seen["old"] = client.get_file((images, first.id), "/cats/1.txt").read().decode()
seen["commits"] = [c.commit.id for c in client.list_commit(images)]
seen["parent"] = next(iter(client.inspect_commit((images, seen["second"])))).parent_commit.id

# a pipeline, its job, its datums, its logs
upper = (
    f"cd /pfs/{images}; for f in $(find -L . -type f); do "
    "echo got $f; tr a-z A-Z <$f >/pfs/out/$(echo $f | cut -c3- | tr / -); done"
)
client.create_pipeline(
    copies,
    transform=pps_pb2.Transform(cmd=["sh"], stdin=[upper]),
    input=pps_pb2.Input(pfs=pps_pb2.PFSInput(glob="/*", repo=images)),
)
seen["set"] = sorted(
    i.commit.branch.repo.name + "." + i.commit.branch.repo.type
    for i in client.wait_commit(client.inspect_branch(copies, "master").head.id)
)
job = next(iter(client.list_job(copies)))
(details,) = client.inspect_job(job.job.id, pipeline_name=copies, wait=True, details=True)
seen["job"] = {
    "state": pps_pb2.JobState.Name(details.state),
    "processed": details.data_processed,
    "skipped": details.data_skipped,
    "failed": details.data_failed,
    "total": details.data_total,
}
seen["datums"] = [pps_pb2.DatumState.Name(d.state) for d in client.list_datum(copies, job.job.id)]
seen["logs"] = sorted(m.message.strip() for m in client.get_job_logs(copies, job.job.id) if m.user)
seen["output"] = {
    f.file.path: client.get_file((copies, "master"), f.file.path).read().decode()
    for f in client.glob_file((copies, "master"), "/*.txt")
}

# one more file starts one more job, which skips what it has done
client.put_file_bytes((images, "master"), "/birds/3.txt", b"owl")
client.wait_commit(client.inspect_branch(images, "master").head.id)
(again,) = client.inspect_job(client.inspect_branch(images, "master").head.id, pipeline_name=copies, wait=True)
seen["again"] = [pps_pb2.JobState.Name(again.state), again.data_processed, again.data_skipped]

# errors that a user meets
for name, call in {
    "no repo": lambda: client.put_file_bytes((prefix + "nowhere", "master"), "/a", b""),
    "no file": lambda: client.get_file((images, "master"), "/nothing"),
    "bad path": lambda: client.put_file_bytes((images, "master"), "/a*b", b""),
    "repo exists": lambda: client.create_repo(images),
    "no pipeline": lambda: list(client.inspect_pipeline(prefix + "nowhere")),
}.items():
    try:
        call()
        seen[name] = "no error"
    except Exception as e:
        said = e.__cause__ or e  # get_file hides the server's answer behind an error of its own
        seen[name] = [said.code().name, said.details()] if hasattr(said, "code") else [type(said).__name__, str(said)]

client.delete_pipeline(copies)
client.delete_repo(images)
seen["gone"] = [r.repo.name for r in client.list_repo() if r.repo.name.startswith(prefix)]
json.dump(seen, sys.stdout)
