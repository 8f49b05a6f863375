"""Tar streams, as tarfile reads them."""

import io
import tarfile

from pachd.pfs import tar
from pachd.store import Store
from tests.pfs_files.bare import Repo, put


def test_every_file_and_directory(repo: Repo, store: Store) -> None:
    long = "/long/" + "/".join(["n" * 60] * 3)
    repo.commit(put(long, b"1" * 600), put("/long/" + "m" * 300, b"2"), put("/big", bytes(3 << 20)), put("/empty", b""))
    with store.read() as txn:
        view = repo.view(txn)
        pieces = list(tar.stream(view, view.files("/")))
        assert len(pieces) <= 4
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            members = archive.getmembers()
            assert [m.name.rstrip("/") for m in members] == [e.path.rstrip("/") for e in view.walk("/")]
            assert all(m.mode == 0 for m in members)
            for member in members:
                if member.isfile():
                    found = archive.extractfile(member)
                    assert found is not None and found.read() == b"".join(view.read(member.name))
                else:
                    assert member.isdir()
