"""Objects in parts: what has arrived of each, kept durably, and what becomes of uploads that nobody finishes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

from blake3 import blake3

from tasks.core.dataset import CHUNK_BYTES, PULLS_PREFIX
from tasks.core.errors import LintasError
from tasks.core.plane import Load, write_of
from tasks.core.ports import SentPart, Write

if TYPE_CHECKING:
    from tasks.core.attributes import Description
    from tasks.core.ports import Direct, OpenUpload, Store, UploadJournal

_log = logging.getLogger(__name__)


class Beginning:
    """Enters in the journal that an upload may have begun before anybody knows its id.

    The answer to the request that begins one may be lost on its way, and the process killed between both: an upload
    without an id stands in the journal meanwhile, and whoever comes next sweeps its key.

    Args:
        uploads: The journal.
        cloud, bucket: The destination.
    """

    def __init__(self, uploads: UploadJournal, cloud: str, bucket: str) -> None:
        self._uploads, self._place = uploads, (cloud, bucket)
        self._asking: set[str] = set()
        self.unanswered: set[str] = set()
        """Keys whose first request to begin was not answered in this run, although a later one may have been."""

    def asking(self, key: str) -> None:
        """An upload may begin from now on."""
        self._uploads.begun(*self._place, key, "", "")
        if key in self._asking:
            self.unanswered.add(key)
        self._asking.add(key)

    def begun(self, key: str, upload_id: str, content: str) -> None:
        """It has."""
        self._uploads.begun(*self._place, key, upload_id, content)
        self._asking.discard(key)
        if key not in self.unanswered:
            self._uploads.ended(*self._place, key, "")

    def ended(self, key: str, upload_id: str) -> None:
        """It was finished or given up."""
        self._uploads.ended(*self._place, key, upload_id)


class UploadsOf:
    """The uploads of some keys alone, so that one shard of a move does not give up those of another.

    Args:
        uploads: All of them.
        owns: Whether a key is one of those.
    """

    def __init__(self, uploads: UploadJournal, owns: Callable[[str], bool]) -> None:
        self._owns = owns
        self._uploads = uploads
        self.begun = uploads.begun
        self.part_sent = uploads.part_sent
        self.ended = uploads.ended

    def open(self, cloud: str, bucket: str, prefix: str) -> list[OpenUpload]:
        """The uploads that were begun and not ended, of these keys."""
        return [upload for upload in self._uploads.open(cloud, bucket, prefix) if self._owns(upload.key)]


class Parted:
    """One object that travels in parts of a chunk each, independent of each other.

    Args:
        load: The object.
        describe: Asks the source what is kept with it; called once, before anything is written.
        far: The destination's signer.
        uploads: Where the upload is kept, or None.
        store: The destination.
        resumed: The upload of an earlier run with the parts that the store still has, or None.
        threads: Where the upload begins, while the first parts are read.

    Attributes:
        upload: The upload's id, as soon as it has begun.
    """

    def __init__(
        self,
        load: Load,
        describe: Callable[[Load], Description],
        far: Direct,
        uploads: UploadJournal | None,
        store: Store,
        resumed: OpenUpload | None,
        threads: Executor,
    ) -> None:
        self.load, self._describe = load, describe
        self._far, self._uploads, self._store = far, uploads, store
        self._beginning = None if uploads is None else Beginning(uploads, store.cloud, store.bucket)
        self._upload_id = resumed.upload_id if resumed else None
        self._sent: dict[int, SentPart] = {part.number: part for part in resumed.parts} if resumed else {}
        self._ended = False
        self._write: Write | None = None
        self._lock = threading.Lock()
        self.upload: Future[str] = threads.submit(self._begin)

    @property
    def write(self) -> Write:
        """What the destination shall write; the first who asks has the source describe it."""
        with self._lock:
            if self._write is None:
                self._write = write_of(self.load, self._describe(self.load))
            return self._write

    @property
    def count(self) -> int:
        """How many parts the object has."""
        return parts_of(self.load.entry.size_bytes)

    def missing(self) -> Iterable[int]:
        """The numbers of the parts that have not arrived. At least one: the last one finishes the object."""
        missing = [number for number in range(1, self.count + 1) if number not in self._sent]
        return missing or [self.count]

    def span(self, number: int) -> tuple[int, int]:
        """First byte and length in bytes of a part."""
        start = (number - 1) * CHUNK_BYTES
        return start, min(CHUNK_BYTES, self.load.entry.size_bytes - start)

    def _begin(self) -> str:
        write = self.write
        with self._lock:
            if self._upload_id is None:
                if self._beginning is not None:
                    self._beginning.asking(write.key)
                self._upload_id = self._far.begin(write)
                if self._beginning is not None:
                    self._beginning.begun(write.key, self._upload_id, content_of(self.load))
            return self._upload_id

    def arrived(self, part: SentPart) -> bool:
        """Enter a part that the store has; whether it was the last one."""
        with self._lock:
            self._sent[part.number] = part
            complete = len(self._sent) == self.count
        if self._uploads is not None:
            self._uploads.part_sent(*self._place(), self.upload.result(), part)
        return complete

    def digest(self) -> str:
        """The content digest of all parts together; see `tasks.core.dataset`."""
        return blake3(b"".join(bytes.fromhex(part.digest) for part in self._in_order())).hexdigest()

    def finish(self) -> str:
        """Make the object visible; its version."""
        version = self._far.finish(self.write, self.upload.result(), self._in_order())
        self.end()
        return version

    def end(self) -> None:
        """The upload is over: forget it."""
        self._ended = True
        if self._uploads is not None and self._upload_id is not None:
            self._uploads.ended(*self._place(), self._upload_id)

    def give_up(self, reason: BaseException) -> None:
        """Give the parts back, unless the object is finished. A failure is noted beside the reason."""
        if self._upload_id is None or self._ended:
            return
        try:
            self._far.abandon(_place_of(self.load.key), self._upload_id)
            self.end()
        except LintasError as error:
            _log.warning("an unfinished upload of '%s' may remain: %s", self.load.key, error)
            reason.add_note(f"an unfinished upload of '{self.load.key}' may remain")

    def _in_order(self) -> list[SentPart]:
        return [self._sent[number] for number in range(1, self.count + 1)]

    def _place(self) -> tuple[str, str, str]:
        return self._store.cloud, self._store.bucket, self.load.key


def parts_of(size_bytes: int) -> int:
    """In how many parts an object of this size travels."""
    return -(-size_bytes // CHUNK_BYTES)


def content_of(load: Load) -> str:
    """What an upload must have in common with a load to be continued for it."""
    return f"{load.entry.digest} {load.entry.size_bytes} {load.replaces or '-'}"


def _place_of(key: str) -> Write:
    """A write of which only the place matters."""
    return Write(key, 0, {}, None, False)


def is_folder(upload: OpenUpload) -> bool:
    """Whether an entry of the journal is no upload but a pulling job's folder, under the key of its first object."""
    return upload.upload_id.startswith(PULLS_PREFIX)


def resumable(
    loads: Iterable[Load], far: Direct, store: Store, uploads: UploadJournal, prefix: str
) -> dict[str, OpenUpload]:
    """The uploads of earlier runs that these loads continue, by key; all others under the prefix are given up.

    Args:
        loads: What is to be carried.
        far: The destination's signer.
        store: The destination.
        uploads: Where uploads are kept.
        prefix: What the keys of the destination's dataset start with.
    """
    wanted = {load.key: load for load in loads}
    found: dict[str, OpenUpload] = {}
    opened = [upload for upload in uploads.open(store.cloud, store.bucket, prefix) if not is_folder(upload)]
    for key in {upload.key for upload in opened if not upload.upload_id}:
        far.sweep(key, {upload.upload_id for upload in opened if upload.key == key})
        uploads.ended(store.cloud, store.bucket, key, "")
    for upload in opened:
        if not upload.upload_id:
            continue
        load = wanted.get(upload.key)
        if load is not None and upload.key not in found and content_of(load) == upload.content:
            there = far.sent(Write(upload.key, load.entry.size_bytes, {}, None, False), upload.upload_id)
            if there is not None:
                kept = tuple(part for part in upload.parts if there.get(part.number) == part.tag)
                found[upload.key] = type(upload)(upload.key, upload.upload_id, upload.content, kept)
                continue
        far.abandon(_place_of(upload.key), upload.upload_id)
        uploads.ended(store.cloud, store.bucket, upload.key, upload.upload_id)
    return found
