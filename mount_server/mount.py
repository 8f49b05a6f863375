"""One mount: takes changes to what its overlay shows, and hands them over to commits."""

from collections.abc import Iterable, Iterator

from mount_server.disk import disk
from mount_server.errors import AlreadyExists, CrossMount, IsADirectory, NotADirectory, NotEmpty, NotFound, ReadOnly
from mount_server.handles import Handle, StagedReader, WriteFile
from mount_server.journal import Journal, MountRow, Staged
from mount_server.listing import CommitTree, split
from mount_server.names import check_path
from mount_server.overlay import Overlay
from mount_server.reader import Contents
from mount_server.source import CommitRef, Entry


class Mount(Overlay):
    """A mounted branch or commit; see `Overlay` for what it shows.

    :param contents: where files of commits are read.
    """

    def __init__(self, row: MountRow, tree: CommitTree, journal: Journal, contents: Contents) -> None:
        super().__init__(row, tree, journal)
        self._contents = contents

    # --- files --------------------------------------------------------------------------------------------------------

    def open(self, path: str, write: bool = False, append: bool = False) -> Handle:
        """Open a file that exists. :raises IsADirectory, NotFound, ReadOnly: it cannot be."""
        if write:
            self.check_writable(path)
        found = self.lookup(path)
        if found is None:
            raise NotFound(f"no such file: {self.row.name}/{path}")
        handle = Handle(self, path, append)
        handle.writable = write
        if isinstance(found, Staged):
            if found.kind == "dir":
                raise IsADirectory(f"{self.row.name}/{path} is a directory")
            with self.lock:
                if write and path in self.writing:
                    handle.writer = self.writer(path)
                elif found.kind == "copy":
                    handle.reader = self._contents.open(None, found.source, found.source_path, found.size, found.hash)
                else:
                    handle.reader = StagedReader(self, path, found)
            return handle
        if found.is_dir or self.tree.ref is None:
            raise IsADirectory(f"{self.row.name}/{path} is a directory")
        handle.reader = self._contents.open(self.tree, self.tree.ref, path, found.size, found.hash)
        handle.identity = found.hash + found.size.to_bytes(8, "big")
        return handle

    def create(self, path: str, append: bool = False) -> Handle:
        """Make an empty file and open it. It is staged when it is closed or synced."""
        self.check_writable(path)
        check_path(path)
        with self.lock:
            if self.lookup(path) is not None:
                raise AlreadyExists(f"{self.row.name}/{path} exists")
            self._check_parent(path)
            writer = WriteFile(self, path)
            writer.dirty = True
            writer.handles = 1
            self._set(path, writer.staged())
            self._unjournaled.add(path)
            self.writing[path] = writer
        handle = Handle(self, path, append)
        handle.writable, handle.writer = True, writer
        return handle

    def truncate(self, path: str, size: int) -> None:
        """Set a file's size; staged at once."""
        handle = self.open(path, write=True)
        try:
            handle.truncate(size)
        finally:
            handle.close()

    def writer(self, path: str) -> WriteFile:
        """The writer of a path, made if nobody writes it yet; give it back with `release_writer`."""
        with self.lock:
            writer = self.writing.get(path)
            if writer is None:
                found = self.lookup(path)
                if found is None:
                    raise NotFound(f"{self.row.name}/{path} was removed")
                if isinstance(found, Staged) and found.kind == "file":
                    writer = WriteFile.of(self, path, found)
                else:
                    writer = WriteFile(self, path)
                    with_source = found.source if isinstance(found, Staged) else self.tree.ref
                    from_path = found.source_path if isinstance(found, Staged) else path
                    assert with_source is not None
                    reader = self._contents.open(None, with_source, from_path, found.size, found.hash)
                    try:
                        writer.load(reader)
                    finally:
                        reader.close()
                    self._set(path, writer.staged())
                    self._unjournaled.add(path)
                self.writing[path] = writer
            writer.handles += 1
            return writer

    def stage_writer(self, writer: WriteFile, sync: bool = False) -> None:
        """Note what a writer holds in the journal."""
        with self.lock:
            if writer.dirty and not writer.gone:
                staged = writer.staged()
                self.journal.put(self.row.name, [(writer.path, staged)])
                self._set(writer.path, staged)
                self._unjournaled.discard(writer.path)
                writer.dirty = False
        if sync:
            self.journal.sync()

    def release_writer(self, writer: WriteFile) -> None:
        """End one use of a writer."""
        with self.lock:
            writer.handles -= 1
            if writer.handles == 0:
                writer.close()
                if self.writing.get(writer.path) is writer:
                    del self.writing[writer.path]
                if writer.dirty and not writer.gone:
                    self._give_up(writer)

    def _give_up(self, writer: WriteFile) -> None:
        """The disk did not take a file when it was closed: show what the journal has of it, as after a restart."""
        noted = self.journal.find(self.row.name, writer.path)
        if writer.blob and (noted is None or noted.blob != writer.blob):
            self.journal.drop_blob(writer.blob)
        self._unset(writer.path)
        if noted is not None:
            self._set(writer.path, noted)

    def touch(self, path: str, mtime: int) -> None:
        """Set a staged file's time. A committed file keeps its commit's."""
        self.check_writable(path)
        with self.lock:
            writer = self.writing.get(path)
            if writer is not None:
                writer.mtime = mtime
            staged = self.staged.get(path)
            if staged is not None and staged.kind in ("file", "copy") and path not in self._unjournaled:
                self._stage([(path, staged._replace(mtime=mtime))])
            elif self.lookup(path) is None:
                raise NotFound(f"no such file: {self.row.name}/{path}")

    # --- names --------------------------------------------------------------------------------------------------------

    def unlink(self, path: str) -> None:
        """Remove a file."""
        self.check_writable(path)
        with self.lock:
            found = self.lookup(path)
            if found is None:
                raise NotFound(f"no such file: {self.row.name}/{path}")
            if (isinstance(found, Staged) and found.kind == "dir") or (isinstance(found, Entry) and found.is_dir):
                raise IsADirectory(f"{self.row.name}/{path} is a directory")
            self._keep_parent(path, self._remove([path]))

    def mkdir(self, path: str) -> None:
        """Make a directory. It is local until a file in it is committed."""
        self.check_writable(path)
        check_path(path)
        with self.lock:
            if self.lookup(path) is not None:
                raise AlreadyExists(f"{self.row.name}/{path} exists")
            self._check_parent(path)
            over_file = b"f" if self._base_file(path) is not None else b""
            self._stage([(path, Staged("dir", self.journal.next_seq(), 0, self.now(), hash=over_file))])

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self.check_writable(path)
        with self.lock:
            if self.names(path):
                raise NotEmpty(f"{self.row.name}/{path} is not empty")
            if not path or not self.in_scope(path):
                raise ReadOnly(f"{self.row.name}/{path} belongs to the mount; unmount it instead")
            staged = self.staged.get(path)
            if staged is not None and staged.hash:
                self._stage([(path, staged._replace(kind="deleted", seq=self.journal.next_seq(), hash=b""))])
            elif self.tree.find(path) is not None:
                gone = Staged("rmdir", self.journal.next_seq(), 0, self.now(), source=CommitRef("", "", self.tree.id))
                self._stage([(path, gone)])
            else:
                self._stage([], [path])
            self._keep_parent(path, [])

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name in the same mount; what has the new name is replaced."""
        self.check_writable(old)
        self.check_writable(new)
        check_path(new)
        if old == new:
            return
        if new.startswith(old + "/"):
            raise CrossMount(f"{self.row.name}/{old} cannot be moved into itself")
        with self.lock:
            source, target = self.lookup(old), self.lookup(new)
            if source is None:
                raise NotFound(f"no such file: {self.row.name}/{old}")
            self._check_parent(new)
            is_dir = source.kind == "dir" if isinstance(source, Staged) else source.is_dir
            if target is not None:
                target_is_dir = target.kind == "dir" if isinstance(target, Staged) else target.is_dir
                if is_dir and not target_is_dir:
                    raise NotADirectory(f"{self.row.name}/{new} is a file")
                if target_is_dir and not is_dir:
                    raise IsADirectory(f"{self.row.name}/{new} is a directory")
                if target_is_dir and self.names(new):
                    raise NotEmpty(f"{self.row.name}/{new} is not empty")
            pairs = [(old, new)]
            if is_dir:
                pairs += [(path, new + path[len(old) :]) for path in self._descendants(old)]
            self._rename(pairs)

    def _rename(self, pairs: list[tuple[str, str]]) -> None:
        puts: list[tuple[str, Staged]] = []
        writers: list[tuple[WriteFile, str]] = []
        for old, new in pairs:
            writer, found = self.writing.get(old), self.lookup(old)
            seq = self.journal.next_seq()
            if writer is not None:
                writers.append((writer, new))
                puts.append((new, writer.staged()))
            elif isinstance(found, Staged):
                over = b"f" if found.kind == "dir" and self._base_file(new) is not None else found.hash
                puts.append((new, found._replace(seq=seq, hash=b"" if found.kind == "dir" and over != b"f" else over)))
            elif found is not None and found.is_dir:
                over = b"f" if self._base_file(new) is not None else b""
                puts.append((new, Staged("dir", seq, 0, self.now(), hash=over)))
            elif found is not None and self.tree.ref is not None:
                puts.append(
                    (
                        new,
                        Staged(
                            "copy", seq, found.size, found.mtime, source=self.tree.ref, source_path=old, hash=found.hash
                        ),
                    )
                )
        gone, forget = self._removal([old for old, _ in pairs])
        # one transaction: a crash leaves either the old names or the new ones
        self._stage(puts + gone, forget)
        for writer, new in writers:
            self.writing.pop(writer.path, None)
            replaced = self.writing.get(new)
            if replaced is not None:
                replaced.gone = True
            writer.path = new
            self.writing[new] = writer
        self._keep_parent(pairs[0][0], [])

    def _descendants(self, path: str) -> Iterator[str]:
        for name in self.names(path):
            child = f"{path}/{name}"
            yield child
            found = self.lookup(child)
            if found is not None and (found.kind == "dir" if isinstance(found, Staged) else found.is_dir):
                yield from self._descendants(child)

    def _remove(self, paths: list[str]) -> list[tuple[str, Staged]]:
        gone, forget = self._removal(paths)
        self._stage(gone, forget)
        for path in paths:
            writer = self.writing.pop(path, None)
            if writer is not None:
                writer.gone = True
        return gone

    def _removal(self, paths: list[str]) -> tuple[list[tuple[str, Staged]], list[str]]:
        """Which changes to note, and which to forget, so that these paths are gone."""
        gone: list[tuple[str, Staged]] = []
        forget: list[str] = []
        for path in paths:
            try:
                entry = self.tree.find(path)
            except NotADirectory:
                entry = None
            seq = self.journal.next_seq()
            staged = self.staged.get(path)
            if entry is None:
                forget.append(path)
                if path in self.pinned_paths():
                    # a running commit is writing it: the next one has to remove it
                    gone.append((path, Staged("deleted", seq, 0, self.now())))
                    forget.pop()
            elif entry.is_dir and not (staged is not None and staged.kind in ("file", "copy")):
                gone.append((path, Staged("rmdir", seq, 0, self.now(), source=CommitRef("", "", self.tree.id))))
            elif entry.is_dir:
                gone.append((path, Staged("rmdir", seq, 0, self.now(), source=CommitRef("", "", self.tree.id))))
            else:
                gone.append((path, Staged("deleted", seq, 0, self.now())))
        return gone, forget

    def _keep_parent(self, path: str, _: object) -> None:
        """A directory stays when its last file goes, until it is removed itself."""
        directory = split(path)[0]
        if directory and directory not in self.staged and self.in_scope(directory):
            try:
                base = self.tree.find(directory)
            except NotADirectory:
                base = None
            if base is None and directory not in self._implied:
                self._stage([(directory, Staged("dir", self.journal.next_seq(), 0, self.now()))])

    # --- staging ------------------------------------------------------------------------------------------------------

    def stage(self, files: Iterable[tuple[str, bytes | None]]) -> tuple[int, int]:
        """Stage many whole files (None: delete) durably in one go, without asking pachd anything.

        :return: how many were staged and how many deleted.
        :raises IllegalName, ReadOnly, NoSpace: nothing was staged then.
        """
        checked: dict[str, bytes | None] = {}
        for path, data in files:
            checked[check_path(path)] = data
        for path in checked:
            self.check_writable(path)
        with self.lock:
            blobs: list[str] = []
            try:
                self._stage(self._staged_files(checked, blobs))
            except BaseException:
                for blob in blobs:
                    self.journal.drop_blob(blob)
                raise
            for path in checked:
                writer = self.writing.pop(path, None)
                if writer is not None:
                    writer.gone = True
        self.journal.sync()
        deleted = sum(data is None for data in checked.values())
        return len(checked) - deleted, deleted

    def _staged_files(self, files: dict[str, bytes | None], blobs: list[str]) -> list[tuple[str, Staged]]:
        """What to note for whole files; the names of content files written for it go to `blobs`."""
        puts: list[tuple[str, Staged]] = []
        now = self.now()
        inline = 0
        for path, data in files.items():
            seq = self.journal.next_seq()
            directory = split(path)[0]
            while directory:
                staged = self.staged.get(directory)
                if (staged is not None and staged.kind in ("file", "copy")) or files.get(directory) is not None:
                    raise NotADirectory(f"/{path} cannot be staged: /{directory} is a file")
                directory = split(directory)[0]
            if data is None:
                puts.append((path, Staged("deleted", seq, 0, now)))
            elif path in self._implied:
                raise IsADirectory(f"/{path} cannot be staged as a file: it is a directory")
            elif len(data) > self.inline_limit(inline):
                blob = self.journal.new_blob()
                blobs.append(blob)
                with disk(f"/{path}"):
                    (self.journal.blobs / blob).write_bytes(data)
                puts.append((path, Staged("file", seq, len(data), now, None, blob)))
            else:
                inline += len(data)
                puts.append((path, Staged("file", seq, len(data), now, data)))
        return puts

    def snapshot(self) -> dict[str, Staged]:
        """What a commit that starts now holds; what is written from now on is the next commit's."""
        with self.lock:
            for writer in list(self.writing.values()):
                if writer.dirty and writer.path not in self._unjournaled:
                    self.stage_writer(writer)
            taken = {path: staged for path, staged in self.staged.items() if path not in self._unjournaled}
            self.pinned_blobs = {staged.blob for staged in taken.values() if staged.blob}
        return taken

    def settle(self, done: dict[str, Staged], tree: CommitTree | None) -> None:
        """Forget what pachd has now, and move on to the new commit in the same moment."""
        with self.lock:
            for path, staged in done.items():
                current = self.staged.get(path)
                if current is not None and current.seq == staged.seq:
                    self._unset(path)
                    if staged.blob and path not in self.writing:
                        (self.journal.blobs / staged.blob).unlink(missing_ok=True)
                    # a writer that is still open stages its file again when it changes it
            self.pinned_blobs = set()
            if tree is not None:
                self.move(tree, None)
