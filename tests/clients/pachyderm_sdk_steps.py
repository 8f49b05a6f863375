"""The steps of the README with pachyderm-sdk 2.12, run in its own environment: prints what it saw as JSON.

usage: pachyderm_sdk_steps.py HOST PORT PREFIX
"""

import json
import sys

from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

host, port, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = Client(host=host, port=port)
seen = {"version": client.get_version().major}
images, copies = prefix + "images", prefix + "copies"
repo = pfs.Repo(name=images, type="user", project=pfs.Project(name="default"))
branch = pfs.Branch(repo=repo, name="master")

# repos and files
seen["exists before"] = client.pfs.repo_exists(repo)
client.pfs.create_repo(repo=repo, description="pictures")
seen["repo"] = client.pfs.inspect_repo(repo=repo).description
with client.pfs.commit(branch=branch) as first:
    first.put_file_from_bytes(path="/cats/1.txt", data=b"tabby")
    first.put_file_from_bytes(path="/cats/2.txt", data=b"siamese")
    first.put_file_from_bytes(path="/dogs/1.txt", data=b"beagle")
    first.put_file_from_bytes(path="/big.bin", data=bytes(range(256)) * 20000)
seen["finished"] = client.pfs.wait_commit(first).finished is not None
seen["first"] = first.id


def read(commit_or_branch: str, path: str) -> bytes:
    with client.pfs.pfs_file(pfs.File.from_uri(f"{images}@{commit_or_branch}:{path}")) as file:
        return file.read()


head = pfs.File.from_uri(f"{images}@master:/")
seen["get"] = read("master", "/cats/1.txt").decode()
seen["big"] = read("master", "/big.bin") == bytes(range(256)) * 20000
seen["list"] = [[f.file.path, pfs.FileType(f.file_type).name, f.size_bytes] for f in client.pfs.list_file(file=head)]
seen["walk"] = [f.file.path for f in client.pfs.walk_file(file=head)]
seen["glob"] = [f.file.path for f in client.pfs.glob_file(commit=head.commit, pattern="/*/1.txt")]
seen["path_exists"] = [
    client.pfs.path_exists(pfs.File.from_uri(f"{images}@master:{p}")) for p in ("/cats/1.txt", "/cats/9.txt")
]
with client.pfs.pfs_tar_file(pfs.File.from_uri(f"{images}@master:/cats/")) as tar:
    seen["tar"] = {m.name: tar.extractfile(m).read().decode() for m in tar if m.isfile()}

# a second version, and what changed
with client.pfs.commit(branch=branch) as second:
    second.put_file_from_bytes(path="/cats/1.txt", data=b"maine coon")
    second.delete_file(path="/dogs/1.txt")
    second.copy_file(src=pfs.File.from_uri(f"{images}@{first.id}:/cats/2.txt"), dst="/copy.txt")
second.wait()
seen["second"] = second.id
seen["diff"] = [
    [d.new_file.file.path if d.new_file.file else "", d.old_file.file.path if d.old_file.file else ""]
    for d in client.pfs.diff_file(
        new_file=pfs.File(commit=pfs.Commit(repo=repo, id=second.id), path="/"),
        old_file=pfs.File(commit=pfs.Commit(repo=repo, id=first.id), path="/"),
    )
]
seen["copied"] = read("master", "/copy.txt").decode()
seen["old"] = read(first.id, "/cats/1.txt").decode()
seen["commits"] = [c.commit.id for c in client.pfs.list_commit(repo=repo)]

# a pipeline, its job, its datums
pipeline = pps.Pipeline(name=copies, project=pfs.Project(name="default"))
upper = f"for f in /pfs/{images}/*/*; do echo got $f; tr a-z A-Z <$f >/pfs/out/$(basename $f); done"
client.pps.create_pipeline(
    pipeline=pipeline,
    transform=pps.Transform(cmd=["sh"], stdin=[upper]),
    input=pps.Input(pfs=pps.PfsInput(glob="/cats", repo=images, project="default")),
)
job = next(iter(client.pps.list_job(pipeline=pipeline))).job
info = client.pps.inspect_job(job=job, wait=True, details=True)
seen["job"] = {
    "state": pps.JobState(info.state).name,
    "processed": info.data_processed,
    "failed": info.data_failed,
    "total": info.data_total,
}
seen["datums"] = [pps.DatumState(d.state).name for d in client.pps.list_datum(job=job)]
seen["logs"] = sorted(m.message.strip() for m in client.pps.get_logs(job=job) if m.user)
seen["pipeline"] = pps.PipelineState(client.pps.inspect_pipeline(pipeline=pipeline).state).name
output = pfs.Commit.from_uri(f"{copies}@master")
seen["output"] = [f.file.path for f in client.pfs.glob_file(commit=output, pattern="/*.txt")]

client.pps.delete_pipeline(pipeline=pipeline)
client.pfs.delete_repo(repo=repo)
seen["exists after"] = client.pfs.repo_exists(repo)
json.dump(seen, sys.stdout)
