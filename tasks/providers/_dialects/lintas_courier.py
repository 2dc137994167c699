"""The courier: carries a pod's files between its directories and an S3 dialect, where nothing else does.

    python lintas_courier.py fetch BUCKET PREFIX DIRECTORY [BUCKET PREFIX DIRECTORY ...]
    python lintas_courier.py unpack BUCKET KEY SHA256 DIRECTORY
    python lintas_courier.py run --output BUCKET PREFIX DIRECTORY --checkpoints BUCKET PREFIX DIRECTORY
        --log BUCKET KEY --failure FILE -- COMMAND ...

Kubernetes has no storage service of its own, so a training pod fetches its code, data and checkpoints, and `run` starts
the launcher, carries checkpoints away every half minute, and output and log when it has ended. It leaves with the
launcher's exit code, or with 75 when the output could not be stored. It needs nothing but Python's standard library
(3.8 or newer): the image need not know Lintas.

The store is told by `LINTAS_S3_ENDPOINT`, `LINTAS_S3_ADDRESSING` (`path` or `virtual`), `LINTAS_S3_REGION`, and the
keys by `LINTAS_S3_ACCESS_KEY_ID`, `LINTAS_S3_SECRET_ACCESS_KEY`, `LINTAS_S3_SESSION_TOKEN`; the command that is run
sees none of the keys. Requests are signed by
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import hashlib
import hmac
import http.client
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

STORE_FAILED = 75
OUTPUT_LIST = "lintas_output.json"

_PR_SET_PDEATHSIG = 1
_CHECKPOINT_EVERY_S = 30.0
_PART_BYTES = 256 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_TRIES = 5
_THREADS = 8
_TIMEOUT_S = 60.0
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_SECRETS = ("LINTAS_S3_ACCESS_KEY_ID", "LINTAS_S3_SECRET_ACCESS_KEY", "LINTAS_S3_SESSION_TOKEN")


class StoreError(Exception):
    """The object store refused something, or could not be reached in several tries."""


class S3:
    """The few calls that a courier needs."""

    def __init__(self) -> None:
        endpoint = urllib.parse.urlsplit(os.environ["LINTAS_S3_ENDPOINT"])
        self._scheme, self._host = endpoint.scheme, endpoint.netloc
        self._virtual = os.environ.get("LINTAS_S3_ADDRESSING", "virtual") == "virtual"
        self._region = os.environ.get("LINTAS_S3_REGION") or "us-east-1"
        self._key_id, self._secret = os.environ[_SECRETS[0]], os.environ[_SECRETS[1]]
        self._session_token = os.environ.get(_SECRETS[2], "")
        self._open = urllib.request.build_opener().open

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        """All keys that begin with the prefix."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            tree = ET.fromstring(self._small("GET", bucket, "", query))  # noqa: S314 - our own store answers
            space = tree.tag.rpartition("}")[0] + "}" if "}" in tree.tag else ""
            for item in tree.iter(space + "Contents"):
                yield item.findtext(space + "Key") or ""
            token = tree.findtext(space + "NextContinuationToken")
            if not token:
                return
            query["continuation-token"] = token

    def download(self, bucket: str, key: str, into: Path) -> None:
        """An object as a file, whole or not at all."""
        into.parent.mkdir(parents=True, exist_ok=True)
        draft = into.with_name(f".{into.name}.part")

        def take(answer: Any) -> bytes:
            with draft.open("wb") as file:
                for piece in iter(lambda: answer.read(_PIECE_BYTES), b""):
                    file.write(piece)
            promised = answer.headers.get("content-length")
            if promised is not None and draft.stat().st_size != int(promised):
                raise OSError("the body ended early")
            return b""

        self._patiently("GET", bucket, key, {}, None, _EMPTY_SHA256, take)
        draft.replace(into)

    def upload(self, source: Path, bucket: str, key: str) -> None:
        """A file as an object; the store checks its SHA-256."""
        size_bytes = source.stat().st_size
        if size_bytes <= _PART_BYTES:
            self._send("PUT", bucket, key, {}, source, 0, size_bytes)
            return
        started = ET.fromstring(self._small("POST", bucket, key, {"uploads": ""}))  # noqa: S314
        upload_id = next((each.text or "" for each in started.iter() if each.tag.endswith("UploadId")), "")
        parts = []
        for number, start in enumerate(range(0, size_bytes, _PART_BYTES), 1):
            length = min(_PART_BYTES, size_bytes - start)
            query = {"partNumber": str(number), "uploadId": upload_id}
            etag = self._send("PUT", bucket, key, query, source, start, length)
            parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        body = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        answered = self._small("POST", bucket, key, {"uploadId": upload_id}, body)
        if b"<Error>" in answered:
            raise StoreError(f"the store did not put '{key}' together")

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        self._small("DELETE", bucket, key, {})

    def _small(self, method: str, bucket: str, key: str, query: dict[str, str], body: bytes = b"") -> bytes:
        digest = hashlib.sha256(body).hexdigest()
        return self._patiently(method, bucket, key, query, lambda: body, digest, lambda answer: answer.read())

    def _send(
        self, method: str, bucket: str, key: str, query: dict[str, str], source: Path, start: int, length: int
    ) -> str:
        digest = hashlib.sha256()
        for piece in _pieces(source, start, length):
            digest.update(piece)
        sent = self._patiently(
            method,
            bucket,
            key,
            query,
            lambda: _Sized(source, start, length),
            digest.hexdigest(),
            lambda answer: (answer.headers.get("etag") or "").encode(),
        )
        return sent.decode()

    def _patiently(
        self, method: str, bucket: str, key: str, query: dict[str, str], body: Any, sha256: str, take: Any
    ) -> bytes:
        trouble = ""
        for tried in range(_TRIES):
            if tried:
                time.sleep(0.25 * 4 ** (tried - 1))
            request = self._signed(method, bucket, key, query, sha256)
            if body is not None:
                request.data = body()
                if isinstance(request.data, _Sized):
                    request.add_header("content-length", str(request.data.length))
            try:
                with self._open(request, timeout=_TIMEOUT_S) as answer:
                    return take(answer)
            except urllib.error.HTTPError as error:
                trouble = f"the store answers {error.code} to {method} {bucket}/{key}"
                if error.code < 500 and error.code != 429:
                    raise StoreError(trouble) from error
            except (OSError, http.client.HTTPException) as error:
                trouble = f"the store cannot be reached for {method} {bucket}/{key} ({type(error).__name__})"
        raise StoreError(trouble)

    def _signed(self, method: str, bucket: str, key: str, query: dict[str, str], sha256: str) -> urllib.request.Request:
        host = f"{bucket}.{self._host}" if self._virtual else self._host
        path = "/" + urllib.parse.quote(key if self._virtual else f"{bucket}/{key}" if key else bucket, safe="/~")
        asked = "&".join(
            f"{urllib.parse.quote(name, safe='~')}={urllib.parse.quote(value, safe='~')}"
            for name, value in sorted(query.items())
        )
        now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - Python 3.8 has no datetime.UTC
        day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
        headers = {"host": host, "x-amz-content-sha256": sha256, "x-amz-date": moment}
        if self._session_token:
            headers["x-amz-security-token"] = self._session_token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join([method, path, asked, lines, names, sha256])
        scope = f"{day}/{self._region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        secret = f"AWS4{self._secret}".encode()
        for part in (day, self._region, "s3", "aws4_request"):
            secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
        authority = f"AWS4-HMAC-SHA256 Credential={self._key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        url = f"{self._scheme}://{host}{path}" + (f"?{asked}" if asked else "")
        request = urllib.request.Request(url, method=method)
        for name, value in {**headers, "authorization": authority}.items():
            if name != "host":
                request.add_header(name, value)
        # Without one urllib invents a form's; the signature does not cover it.
        request.add_header("content-type", "application/octet-stream")
        return request


class _Sized:
    """A part of a file as an iterable body of known length."""

    def __init__(self, source: Path, start: int, length: int) -> None:
        self._place, self.length = (source, start, length), length

    def __iter__(self) -> Iterator[bytes]:
        return _pieces(*self._place)


def _pieces(source: Path, start: int, length: int) -> Iterator[bytes]:
    with source.open("rb") as file:
        file.seek(start)
        while length > 0:
            piece = file.read(min(_PIECE_BYTES, length))
            if not piece:
                return
            length -= len(piece)
            yield piece


def fetch(store: S3, bucket: str, prefix: str, into: Path) -> None:
    """Bring every object below a prefix into a directory, by the rest of its key."""
    into.mkdir(parents=True, exist_ok=True)

    def one(key: str) -> None:
        place = into / key[len(prefix) :].lstrip("/")
        if into.resolve() not in place.resolve().parents:
            raise StoreError(f"the key '{key}' leads outside of its directory")
        store.download(bucket, key, place)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(one, (key for key in store.keys(bucket, prefix) if not key.endswith("/"))))


def unpack(store: S3, bucket: str, key: str, sha256: str, into: Path) -> None:
    """Bring a tar.gz and unpack it. Raises `StoreError` when it is not the one that was sent."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive.tar.gz"
        store.download(bucket, key, archive)
        digest = hashlib.sha256()
        for piece in _pieces(archive, 0, archive.stat().st_size):
            digest.update(piece)
        if digest.hexdigest() != sha256:
            raise StoreError(f"'{key}' is not what was sent")
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(into, filter="data")
            else:
                tar.extractall(into)  # noqa: S202 - the digest has just said that it is our own archive


class Mirror:
    """A directory whose changed files are carried to a prefix."""

    def __init__(self, store: S3, bucket: str, prefix: str, directory: Path) -> None:
        self._store, self._bucket, self._prefix, self._directory = store, bucket, prefix, directory
        self._carried: dict[str, tuple[int, int]] = self._files()
        self._alone = threading.Lock()

    def carry(self) -> None:
        """Upload what is new or changed and delete what is gone, the list of the output last."""
        with self._alone:
            now = self._files()
            for name in sorted(now, key=lambda name: (name == OUTPUT_LIST, name)):
                if self._carried.get(name) != now[name]:
                    with contextlib.suppress(FileNotFoundError):
                        self._store.upload(self._directory / name, self._bucket, self._prefix + name)
                        self._carried[name] = now[name]
            for name in set(self._carried) - set(now):
                self._store.delete(self._bucket, self._prefix + name)
                del self._carried[name]

    def clear(self) -> None:
        """Delete everything below the prefix."""
        with self._alone:
            for key in list(self._store.keys(self._bucket, self._prefix)):
                self._store.delete(self._bucket, key)

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self._directory.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    status = path.stat()
                    found[path.relative_to(self._directory).as_posix()] = (status.st_size, status.st_mtime_ns)
        return found


def run(store: S3, chosen: argparse.Namespace) -> int:
    """Run the launcher and carry what it makes; returns the exit code to leave with."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: asked.append(number))
    places = [(place[0], place[1], Path(place[2])) for place in (chosen.output, chosen.checkpoints)]
    for _, _, directory in places:
        directory.mkdir(parents=True, exist_ok=True)
    output, checkpoints = (Mirror(store, *place) for place in places)
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        code = _launch(chosen.command, environment, log, checkpoints, asked)
        try:
            checkpoints.clear() if code == 0 else checkpoints.carry()
            store.upload(log, *chosen.log)
            output.carry()
        except StoreError as error:
            chosen.failure.write_text(f"what the job made could not be stored: {error}")
            return STORE_FAILED
    return code


def _launch(command: list[str], environment: dict[str, str], log: Path, checkpoints: Mirror, asked: list[int]) -> int:
    courier = os.getpid()
    # It must end with its courier, also when that one is killed; only Linux can promise it.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def die_with_courier() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != courier:
                os._exit(1)

    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_courier,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=_tee, args=(process.stdout, log), daemon=True)
    reader.start()
    told, next_carry = False, time.monotonic() + _CHECKPOINT_EVERY_S
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(0.1)
            break
        if asked and not told:
            process.send_signal(signal.SIGTERM)
            told = True
        if time.monotonic() > next_carry:
            # One that fails is made up for by the next, and the last one counts.
            with contextlib.suppress(StoreError):
                checkpoints.carry()
            next_carry = time.monotonic() + _CHECKPOINT_EVERY_S
    reader.join(5)
    return code if code >= 0 else 128 - code


def _tee(source: IO[bytes], log: Path) -> None:
    with log.open("wb") as file:
        while True:
            piece = os.read(source.fileno(), 65536)
            if not piece:
                return
            file.write(piece)
            with contextlib.suppress(OSError):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    given = sys.argv[1:] if arguments is None else arguments
    command: list[str] = []
    if "--" in given:
        command, given = given[given.index("--") + 1 :], given[: given.index("--")]
    parser = argparse.ArgumentParser(description="Carry a pod's files to and from object storage.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("fetch").add_argument("places", nargs="+")
    verbs.add_parser("unpack").add_argument("place", nargs=4)
    running = verbs.add_parser("run")
    running.add_argument("--output", nargs=3, required=True)
    running.add_argument("--checkpoints", nargs=3, required=True)
    running.add_argument("--log", nargs=2, required=True)
    running.add_argument("--failure", type=Path, required=True)
    chosen = parser.parse_args(given)
    chosen.command = command
    store = S3()
    if chosen.verb == "run":
        return run(store, chosen)
    try:
        if chosen.verb == "fetch":
            for at in range(0, len(chosen.places), 3):
                bucket, prefix, directory = chosen.places[at : at + 3]
                fetch(store, bucket, prefix, Path(directory))
        else:
            bucket, key, sha256, directory = chosen.place
            unpack(store, bucket, key, sha256, Path(directory))
    except StoreError as error:
        print(f"lintas_courier: {error}", file=sys.stderr)
        return STORE_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
