"""The double of Cloud Storage, seen by Google's own SDK, by rclone (Google's Go client) and over bare HTTP."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import subprocess
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import httpx
import pytest
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.credentials import Credentials

from deployments.local import credentials
from deployments.local.credentials import SecretFiles
from deployments.local.object_stores import cloud_storage, console_script
from deployments.local.ports import free_ports
from deployments.local.processes import Process
from tasks.core.cloud import CloudConfig
from tests.servers import ObjectClouds, rclone_environment

KIB, MIB = 1024, 1024 * 1024
QUANTUM = 256 * KIB


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


# The SDK types its optional arguments as required ones.
def client_of(endpoint: str, token: str) -> Any:
    return storage.Client(
        project="lintas-test", credentials=Credentials(token), client_options={"api_endpoint": endpoint}
    )


@pytest.fixture(scope="module")
def google(object_clouds: ObjectClouds) -> CloudConfig:
    return object_clouds["google"]


@pytest.fixture(scope="module")
def client(google: CloudConfig) -> Any:
    return client_of(google.endpoint("objects"), google.credentials["token"].reveal())


@pytest.fixture
def bucket(client: Any) -> Any:
    return client.create_bucket(f"double-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="module")
def http(google: CloudConfig) -> httpx.Client:
    token = google.credentials["token"].reveal()
    return httpx.Client(base_url=google.endpoint("objects"), headers={"authorization": f"Bearer {token}"}, timeout=60)


@pytest.fixture
def resumable(http: httpx.Client, bucket: Any) -> Callable[..., str]:
    """Begins a resumable upload and gives its address."""

    def begin(name: str = "object", **query: str) -> str:
        query = {"uploadType": "resumable", "name": name, **query}
        response = http.post(f"/upload/storage/v1/b/{bucket.name}/o", params=query)
        assert response.status_code == 200
        return response.headers["location"]

    return begin


def send(address: str, body: bytes, content_range: str, **headers: str) -> httpx.Response:
    # Without credentials: the address of a resumable upload is permission enough.
    return httpx.put(address, content=body, headers={"content-range": content_range, **headers})


# Who may ask


@pytest.mark.parametrize("path", ["/storage/v1/b?project=p", "/upload/storage/v1/b/b/o?uploadType=media&name=n"])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic wrong"}])
def test_json_requests_without_the_right_token_are_refused_in_the_services_shape(
    google: CloudConfig, path: str, header: dict[str, str]
) -> None:
    verb = "POST" if "upload" in path else "GET"
    response = httpx.request(verb, google.endpoint("objects") + path, headers=header)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.json()["error"]["code"] == 401
    assert response.json()["error"]["errors"][0]["location"] == "Authorization"


def test_xml_requests_without_the_right_token_are_refused_in_the_services_shape(google: CloudConfig) -> None:
    response = httpx.get(f"{google.endpoint('objects')}/bucket/object", headers={"authorization": "Bearer wrong"})
    assert response.status_code == 401
    assert ET.fromstring(response.content).findtext("Code") == "AuthenticationRequired"


# Buckets


def test_a_bucket_is_created_once_and_deleted_only_when_it_is_empty(client: Any, bucket: Any) -> None:
    with pytest.raises(exceptions.Conflict):
        client.create_bucket(bucket.name)
    bucket.blob("object").upload_from_string(b"content")
    with pytest.raises(exceptions.Conflict, match="not empty"):
        bucket.delete()
    bucket.blob("object").delete()
    bucket.delete()
    assert client.lookup_bucket(bucket.name) is None


@pytest.mark.parametrize("name", ["ab", "Capitals", "goog-bucket", "a..b", "-begins"])
def test_a_bucket_of_an_impossible_name_is_refused(client: Any, name: str) -> None:
    # The SDK checks some names itself, so the request is made without it.
    with pytest.raises((exceptions.BadRequest, ValueError)):
        client.create_bucket(name)


def test_notification_configurations_are_kept(client: Any, bucket: Any) -> None:
    wanted = bucket.notification("landed", topic_project="lintas-test", event_types=["OBJECT_FINALIZE"])
    wanted.create()
    (kept,) = bucket.list_notifications()
    assert (kept.topic_name, kept.event_types) == ("landed", ["OBJECT_FINALIZE"])
    kept.delete()
    assert list(bucket.list_notifications()) == []


# Objects


@pytest.mark.parametrize("name", ["a", "with space/ä/%41/+", "x" * 1024, "trailing/", "a//b", "?#&="])
def test_an_object_comes_back_with_its_bytes_checksums_and_metadata(bucket: Any, name: str) -> None:
    written = bucket.blob(name)
    written.metadata = {"colour": "blau"}
    written.upload_from_string(b"content", content_type="text/plain")
    read = bucket.get_blob(name)
    assert read is not None
    assert read.download_as_bytes() == b"content"
    assert (read.crc32c, read.size, read.content_type) == (crc32c(b"content"), 7, "text/plain")
    assert read.md5_hash == base64.b64encode(hashlib.md5(b"content").digest()).decode()
    assert read.metadata == {"colour": "blau"}


def test_ranges_are_cut_as_asked(bucket: Any) -> None:
    blob = bucket.blob("object")
    blob.upload_from_string(b"0123456789")
    assert blob.download_as_bytes(start=3, end=5, checksum=None) == b"345"
    assert blob.download_as_bytes(start=8, end=100, checksum=None) == b"89"
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=10, checksum=None)


def test_metadata_is_patched_and_its_generation_counted(bucket: Any) -> None:
    blob = bucket.blob("object")
    blob.metadata = {"kept": "1", "dropped": "2"}
    blob.upload_from_string(b"content")
    blob.metadata = {"kept": "1", "dropped": None}
    blob.patch(if_metageneration_match=1)
    read = bucket.get_blob("object")
    assert read is not None
    assert (read.metadata, read.metageneration, read.generation) == ({"kept": "1"}, 2, blob.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.patch(if_metageneration_match=1)


def test_a_missing_object_or_bucket_is_not_found(client: Any, bucket: Any) -> None:
    assert bucket.get_blob("nothing") is None
    with pytest.raises(exceptions.NotFound):
        bucket.blob("nothing").download_as_bytes()
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        client.bucket("no-such-bucket").blob("object").upload_from_string(b"content")


def test_parts_are_composed_in_their_order(bucket: Any) -> None:
    parts = [bucket.blob(f"part-{number}") for number in range(3)]
    for part in parts:
        part.upload_from_string(part.name)
    whole = bucket.blob("whole")
    whole.compose(parts)
    assert whole.download_as_bytes() == b"part-0part-1part-2"
    assert (whole.component_count, whole.md5_hash) == (3, None)
    with pytest.raises(exceptions.PreconditionFailed):
        whole.compose(parts, if_generation_match=0)


def test_a_copy_is_another_object_with_the_same_content(bucket: Any) -> None:
    source = bucket.blob("source")
    source.metadata = {"colour": "blau"}
    source.upload_from_string(b"content")
    copied = bucket.copy_blob(source, bucket, "copied")
    assert copied.download_as_bytes() == b"content"
    token, done, total = bucket.blob("rewritten").rewrite(source)
    assert (token, done, total) == (None, 7, 7)
    source.delete()
    read = bucket.get_blob("rewritten")
    assert read is not None
    assert (read.metadata, read.download_as_bytes()) == ({"colour": "blau"}, b"content")


def test_versions_are_kept_where_the_bucket_keeps_them(client: Any, bucket: Any) -> None:
    bucket.versioning_enabled = True
    bucket.patch()
    first = bucket.blob("object")
    first.upload_from_string(b"first")
    bucket.blob("object").upload_from_string(b"second")
    old = bucket.get_blob("object", generation=first.generation)
    assert old is not None
    assert old.download_as_bytes() == b"first"
    bucket.blob("object").delete()
    assert [blob.name for blob in client.list_blobs(bucket)] == []
    assert len(list(client.list_blobs(bucket, versions=True))) == 2


# Preconditions


def test_a_write_with_a_precondition_that_fails_changes_nothing(bucket: Any) -> None:
    blob = bucket.blob("object")
    blob.upload_from_string(b"first", if_generation_match=0)
    generation = blob.generation
    for condition in ({"if_generation_match": 0}, {"if_generation_match": generation + 1}):
        with pytest.raises(exceptions.PreconditionFailed):
            bucket.blob("object").upload_from_string(b"second", **condition)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("object").upload_from_string(b"second", if_metageneration_match=2)
    read = bucket.get_blob("object")
    assert read is not None
    assert (read.generation, read.download_as_bytes()) == (generation, b"first")
    bucket.blob("object").upload_from_string(b"third", if_generation_match=generation)
    assert bucket.blob("object").download_as_bytes() == b"third"


def test_a_delete_with_a_precondition_that_fails_deletes_nothing(bucket: Any) -> None:
    blob = bucket.blob("object")
    blob.upload_from_string(b"content")
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("object").delete(if_generation_match=blob.generation - 1)
    assert bucket.blob("object").exists()
    bucket.blob("object").delete(if_generation_match=blob.generation)
    assert not bucket.blob("object").exists()


def test_reads_obey_preconditions(bucket: Any) -> None:
    blob = bucket.blob("object")
    blob.upload_from_string(b"content")
    with pytest.raises(exceptions.PreconditionFailed):
        blob.download_as_bytes(if_generation_match=blob.generation - 1)
    with pytest.raises(exceptions.NotModified):
        bucket.blob("object").reload(if_generation_not_match=blob.generation)


def test_of_eight_simultaneous_creations_exactly_one_wins(bucket: Any) -> None:
    def create(number: int) -> bool:
        try:
            bucket.blob("object").upload_from_string(f"writer {number}", if_generation_match=0)
        except exceptions.PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(create, range(8)))
    assert sum(outcomes) == 1
    assert bucket.blob("object").download_as_bytes() == f"writer {outcomes.index(True)}".encode()


# Checksums


@pytest.mark.parametrize("claim", ["crc32c", "md5Hash"])
def test_an_upload_with_a_wrong_checksum_leaves_no_object(bucket: Any, claim: str) -> None:
    blob = bucket.blob("object")
    wrong = crc32c(b"other") if claim == "crc32c" else base64.b64encode(hashlib.md5(b"other").digest()).decode()
    if claim == "crc32c":
        blob.crc32c = wrong
    else:
        blob.md5_hash = wrong
    with pytest.raises(exceptions.BadRequest, match="doesn't match calculated"):
        blob.upload_from_string(b"content", checksum=None)
    assert not bucket.blob("object").exists()


def test_a_resumable_upload_with_a_wrong_checksum_leaves_no_object(bucket: Any, resumable: Callable[..., str]) -> None:
    address = resumable()
    refused = send(address, b"content", "bytes 0-6/7", **{"x-goog-hash": f"crc32c={crc32c(b'other')}"})
    assert refused.status_code == 400
    assert send(address, b"", "bytes */7").status_code == 404
    assert not bucket.blob("object").exists()


# Resumable uploads


def test_the_sdks_resumable_upload_arrives_whole(bucket: Any) -> None:
    content = os.urandom(3 * MIB + 17)
    blob = bucket.blob("object", chunk_size=MIB)
    blob.upload_from_string(content, checksum="crc32c")
    assert bucket.blob("object").download_as_bytes() == content


def test_an_upload_is_continued_where_the_server_says(bucket: Any, resumable: Callable[..., str]) -> None:
    content = os.urandom(3 * QUANTUM)
    address = resumable()
    assert "range" not in send(address, b"", "bytes */*").headers
    first = send(address, content[: 2 * QUANTUM], f"bytes 0-{2 * QUANTUM - 1}/*")
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{2 * QUANTUM - 1}")
    asked = send(address, b"", f"bytes */{len(content)}")
    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{2 * QUANTUM - 1}")
    assert not bucket.blob("object").exists()
    # What the server has already is sent again and not stored twice.
    last = send(address, content[QUANTUM:], f"bytes {QUANTUM}-{len(content) - 1}/{len(content)}")
    assert last.status_code == 200
    assert bucket.blob("object").download_as_bytes() == content
    assert send(address, b"", f"bytes */{len(content)}").json()["generation"] == last.json()["generation"]


def test_only_whole_quanta_of_an_unfinished_upload_are_kept(resumable: Callable[..., str]) -> None:
    address = resumable()
    answer = send(address, os.urandom(QUANTUM + 1000), f"bytes 0-{QUANTUM + 999}/*")
    assert (answer.status_code, answer.headers["range"]) == (308, f"bytes=0-{QUANTUM - 1}")


def test_what_a_cut_connection_brought_is_kept_in_whole_quanta(resumable: Callable[..., str]) -> None:
    address = httpx.URL(resumable())
    head = f"PUT {address.raw_path.decode()} HTTP/1.1\r\nHost: {address.netloc.decode()}\r\n"
    head += f"Content-Length: {4 * QUANTUM}\r\nContent-Range: bytes 0-{4 * QUANTUM - 1}/{4 * QUANTUM}\r\n\r\n"
    with socket.create_connection((address.host, address.port or 0)) as connection:
        connection.sendall(head.encode() + b"x" * (2 * QUANTUM + 1000))
        # The server reads on until it sees the end, so closing loses nothing that was sent.
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    asked = send(str(address), b"", "bytes */*")
    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{2 * QUANTUM - 1}")


def test_a_chunk_that_leaves_a_gap_or_has_another_length_is_refused(resumable: Callable[..., str]) -> None:
    address = resumable()
    gap = send(address, b"x" * QUANTUM, f"bytes {QUANTUM}-{2 * QUANTUM - 1}/*")
    assert (gap.status_code, "exceeds already uploaded size" in gap.text) == (400, True)
    longer = send(address, b"x" * 20, "bytes 0-9/10")
    assert (longer.status_code, "20 byte(s) in the request body" in longer.text) == (400, True)
    assert send(address, b"x" * 10, "bytes 0-9/10").status_code == 200


def test_preconditions_of_a_resumable_upload_hold_at_its_end(bucket: Any, resumable: Callable[..., str]) -> None:
    address = resumable(ifGenerationMatch="0")
    bucket.blob("object").upload_from_string(b"faster")
    assert send(address, b"slower", "bytes 0-5/6").status_code == 412
    assert bucket.blob("object").download_as_bytes() == b"faster"


def test_a_cancelled_upload_is_gone(resumable: Callable[..., str]) -> None:
    address = resumable()
    assert httpx.delete(address).status_code == 499
    assert send(address, b"content", "bytes 0-6/7").status_code == 404


# Listings


def test_a_listing_pages_through_everything_once_and_in_order(client: Any, bucket: Any) -> None:
    names = sorted(["a/1", "a/2", "a-b", "b", "ä", "z/y/x", "\U0001f600", "a/"], key=str.encode)
    for name in names:
        bucket.blob(name).upload_from_string(b"")
    for size in (1, 2, 3, 1000):
        assert [blob.name for blob in client.list_blobs(bucket, page_size=size)] == names
    assert [blob.name for blob in client.list_blobs(bucket, prefix="a/")] == ["a/", "a/1", "a/2"]
    window = client.list_blobs(bucket, start_offset="a/1", end_offset="b")
    assert [blob.name for blob in window] == ["a/1", "a/2"]


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_delimiter_folds_names_into_prefixes(client: Any, bucket: Any, size: int) -> None:
    for name in ["dir/", "dir/a", "dir/sub/1", "dir/sub/2", "dir/sub2/1", "other/1", "top"]:
        bucket.blob(name).upload_from_string(b"")
    top = client.list_blobs(bucket, delimiter="/", page_size=size)
    assert [blob.name for blob in top] == ["top"]
    assert top.prefixes == {"dir/", "other/"}
    inner = client.list_blobs(bucket, prefix="dir/", delimiter="/", page_size=size)
    assert [blob.name for blob in inner] == ["dir/", "dir/a"]
    assert inner.prefixes == {"dir/sub/", "dir/sub2/"}


# The XML API


def test_the_sdks_multipart_upload_through_the_xml_api_arrives_whole(bucket: Any, tmp_path: Path) -> None:
    content = os.urandom(11 * MIB + 5)
    (tmp_path / "file").write_bytes(content)
    blob = bucket.blob("object")
    transfer_manager.upload_chunks_concurrently(
        str(tmp_path / "file"), blob, chunk_size=5 * MIB, worker_type=transfer_manager.THREAD, max_workers=2
    )
    read = bucket.get_blob("object")
    assert read is not None
    assert (read.crc32c, read.md5_hash, read.size) == (crc32c(content), None, len(content))
    assert read.download_as_bytes() == content


def parts_of(http: httpx.Client, path: str, contents: list[bytes]) -> tuple[str, str]:
    begun = http.post(f"{path}?uploads")
    upload_id = ET.fromstring(begun.content).findtext("{*}UploadId")
    answers = [
        http.put(f"{path}?partNumber={number}&uploadId={upload_id}", content=content)
        for number, content in enumerate(contents, 1)
    ]
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.headers['etag']}</ETag></Part>"
        for number, answer in enumerate(answers, 1)
    )
    return str(upload_id), f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"


@pytest.mark.parametrize(
    ("contents", "change", "code"),
    [
        ([b"small", b"last"], lambda body: body, "EntityTooSmall"),
        ([b"x" * 5 * MIB, b"last"], lambda body: body.replace("<PartNumber>2", "<PartNumber>3"), "InvalidPart"),
        ([b"x" * 5 * MIB, b"last"], lambda body: body.replace("<PartNumber>2", "<PartNumber>1"), "InvalidPartOrder"),
        ([b"only"], lambda body: body.replace("<PartNumber>1", "<Number>1"), "MalformedCompleteMultipartUpload"),
        ([b"only"], lambda body: body[:-5], "MalformedCompleteMultipartUpload"),
    ],
)
def test_a_completion_that_does_not_fit_the_parts_is_refused(
    http: httpx.Client, bucket: Any, contents: list[bytes], change: Callable[[str], str], code: str
) -> None:
    path = f"/{bucket.name}/object"
    upload_id, completion = parts_of(http, path, contents)
    refused = http.post(f"{path}?uploadId={upload_id}", content=change(completion))
    assert (refused.status_code, ET.fromstring(refused.content).findtext("Code")) == (400, code)
    assert not bucket.blob("object").exists()
    assert http.delete(f"{path}?uploadId={upload_id}").status_code == 204
    assert http.delete(f"{path}?uploadId={upload_id}").status_code == 404


def test_xml_objects_are_the_json_objects(http: httpx.Client, bucket: Any) -> None:
    path = f"/{bucket.name}/dir/with%20space"
    headers = {"content-type": "text/plain", "x-goog-meta-colour": "blau", "x-goog-if-generation-match": "0"}
    assert http.put(path, content=b"0123456789", headers=headers).status_code == 200
    assert http.put(path, content=b"again", headers=headers).status_code == 412
    read = bucket.get_blob("dir/with space")
    assert read is not None
    assert (read.metadata, read.content_type, read.size) == ({"colour": "blau"}, "text/plain", 10)
    head = http.head(path)
    assert (head.headers["content-length"], head.headers["x-goog-meta-colour"]) == ("10", "blau")
    assert f"crc32c={read.crc32c}" in head.headers["x-goog-hash"]
    part = http.get(path, headers={"range": "bytes=-3"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"789", "bytes 7-9/10")
    listed = ET.fromstring(http.get(f"/{bucket.name}?list-type=2&delimiter=/").content)
    assert [prefix.text for prefix in listed.iterfind("{*}CommonPrefixes/{*}Prefix")] == ["dir/"]
    assert http.delete(path, headers={"x-goog-if-generation-match": "1"}).status_code == 412
    assert http.delete(path).status_code == 204
    gone = http.get(path)
    assert (gone.status_code, ET.fromstring(gone.content).findtext("Code")) == (404, "NoSuchKey")


def test_a_wrong_checksum_in_the_xml_api_is_refused(http: httpx.Client, bucket: Any) -> None:
    for headers in ({"x-goog-hash": f"crc32c={crc32c(b'other')}"}, {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}):
        refused = http.put(f"/{bucket.name}/object", content=b"content", headers=headers)
        assert (refused.status_code, ET.fromstring(refused.content).findtext("Code")) == (400, "BadDigest")
    assert not bucket.blob("object").exists()


# What it does not do


def test_what_is_not_imitated_is_refused_and_never_ignored(http: httpx.Client, bucket: Any) -> None:
    refused: list[httpx.Response] = [
        http.get(f"/storage/v1/b/{bucket.name}/o?matchGlob=*.txt"),
        http.get(f"/storage/v1/b/{bucket.name}/iam"),
        http.post(f"/storage/v1/b/{bucket.name}/o/x/moveTo/o/y"),
        http.get(f"/{bucket.name}?acl"),
        http.put(f"/{bucket.name}/copy", headers={"x-goog-copy-source": "a/b"}),
    ]
    assert [response.status_code for response in refused] == [501] * len(refused)


# Another client, another start


def test_rclone_copies_there_and_back(google: CloudConfig, bucket: Any, tmp_path: Path) -> None:
    for name, size in {"empty": 0, "small": 1000, "dir/large": 20 * MIB}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(os.urandom(size))
    rclone = [console_script("rclone"), "--retries", "1"]
    environment = rclone_environment(google)
    remote = f"google:{bucket.name}/copied"

    def run(*arguments: str) -> None:
        done = subprocess.run([*rclone, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run("copy", str(tmp_path), remote)
    run("check", str(tmp_path), remote)
    run("check", "--download", str(tmp_path), remote)
    run("copy", remote, str(tmp_path / "back"))
    assert (tmp_path / "back" / "dir" / "large").read_bytes() == (tmp_path / "dir" / "large").read_bytes()


def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    token = SecretFiles(tmp_path / "secrets").path("token", credentials.token)
    (port,) = free_ports(1)

    def start() -> tuple[Process, Any]:
        process = cloud_storage(port, tmp_path / "data", tmp_path / "log", token).start()
        process.wait_ready()
        return process, client_of(f"http://127.0.0.1:{port}", token.read_text())

    process, client = start()
    content = os.urandom(2 * QUANTUM)
    try:
        bucket = client.create_bucket("durable")
        blob = bucket.blob("object")
        blob.upload_from_string(b"content")
        address = bucket.blob("unfinished").create_resumable_upload_session()
        assert send(address, content[:QUANTUM], f"bytes 0-{QUANTUM - 1}/*").status_code == 308
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.stop()
    (tmp_path / "data" / "bodies" / "left-behind").write_bytes(b"half a body")
    process, client = start()
    try:
        bucket = client.bucket("durable")
        assert bucket.blob("object").download_as_bytes(if_generation_match=blob.generation) == b"content"
        last = send(address, content[QUANTUM:], f"bytes {QUANTUM}-{len(content) - 1}/{len(content)}")
        assert last.status_code == 200
        assert bucket.blob("unfinished").download_as_bytes(retry=DEFAULT_RETRY) == content
        assert not (tmp_path / "data" / "bodies" / "left-behind").exists()
    finally:
        process.stop()
