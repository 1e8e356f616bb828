"""The same stack with an S3 server: only S3 listens, its keys hold, and it does everything that the service needs."""

import json
import socket
import ssl
import threading
import time
from typing import Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import ClientError

from pnc_client import Client
from tests.compose.living import Life, wait_ready
from tests.compose.report import Report
from tests.compose.sandbox import PROJECT
from tests.compose.stack import Stack, listening

ENDPOINT = "http://127.0.0.1:8333"
BUCKET = "pnc"
PORT, KEYS_PORT = 8333, 18333
"""S3's port, and the gRPC port beside it that can change keys."""
PART = 5 * 1024**2


def check(report: Report, stack: Stack) -> None:
    """Start the stack, and check the server and a user's way."""
    began = time.monotonic()
    stack.up("--build")
    report.check("up --wait with S3", wait_ready())
    report.note("seconds of the start with S3", round(time.monotonic() - began))
    inside = stack.inspect("store")
    report.equal("only S3's ports listen", listening(stack.box, inside["State"]["Pid"]), {PORT, KEYS_PORT})
    address = next(iter(inside["NetworkSettings"]["Networks"].values()))["IPAddress"]
    report.check("the port for keys asks for a certificate", _refuses(address), address)
    report.note("megabytes of an empty S3 store", stack.volume_megabytes("store"))
    _check_strangers(report)
    _check_conditions(report, _client(stack))
    _check_parts(report, _client(stack))
    life = Life(report, stack)
    life.clone()
    with Client(ENDPOINT.replace("8333", "8000"), timeout=120) as client:
        url = f"{client.url}/v1/modules/{life.module}/bundle?payload=full"
        report.equal("bundles are redirected to S3", httpx.get(url, timeout=60).status_code, 307)
    report.note("megabytes of the S3 store at the end", stack.volume_megabytes("store"))
    report.check("it takes disk in proportion", stack.volume_megabytes("store") < 200)
    began = time.monotonic()
    stack.compose("stop", "store")
    report.note("seconds of the S3 server's end", round(time.monotonic() - began))
    code = json.loads(stack.box.docker("inspect", f"{PROJECT}-store-1"))[0]["State"]["ExitCode"]
    report.check("it ends by itself", code != 137, f"exit code {code}")


def _refuses(address: str) -> bool:
    """Whether a TLS connection without a certificate gets no data, and a plain one gets nothing either."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((address, KEYS_PORT), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            return not _answers(secured)
    except (ssl.SSLError, ConnectionError):
        return True


def _answers(secured: ssl.SSLSocket) -> bool:
    return len(secured.recv(100)) > 0


def _client(stack: Stack, secret: str | None = None) -> Any:
    file = stack.execute("api", "cat", "/run/secrets/pnc/aws")[1].splitlines()
    values = dict(line.split(" = ") for line in file if " = " in line)
    return boto3.client(
        "s3",
        endpoint_url=ENDPOINT,
        region_name="us-east-1",
        aws_access_key_id=values["aws_access_key_id"],
        aws_secret_access_key=secret or values["aws_secret_access_key"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def _status(call: Any, **given: object) -> int:
    """HTTP status of a call."""
    try:
        return int(call(Bucket=BUCKET, **given)["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def _check_strangers(report: Report) -> None:
    put = httpx.put(f"{ENDPOINT}/{BUCKET}/stranger", content=b"x").status_code
    listed = httpx.get(f"{ENDPOINT}/{BUCKET}").status_code
    report.equal("without keys nothing is written or listed", (put, listed), (403, 403))


def _check_conditions(report: Report, client: Any) -> None:
    etag = client.put_object(Bucket=BUCKET, Key="t/a", Body=b"x" * 100)["ETag"]
    source = {"Bucket": BUCKET, "Key": "t/a"}
    got = (
        _status(client.put_object, Key="t/a", Body=b"y", IfNoneMatch="*"),
        _status(client.put_object, Key="t/b", Body=b"y", IfNoneMatch="*"),
        _status(client.copy_object, Key="t/c", CopySource=source, CopySourceIfMatch=etag),
        _status(client.copy_object, Key="t/d", CopySource=source, CopySourceIfMatch='"00"'),
        _status(client.get_object, Key="t/a", Range="bytes=10-19"),
        _status(client.get_object, Key="t/a", IfMatch='"00"'),
    )
    report.equal("conditional put and copy, ranges", got, (412, 200, 200, 412, 206, 412))
    won: list[int] = []

    def race() -> None:
        won.append(_status(client.put_object, Key="t/race", Body=b"1", IfNoneMatch="*"))

    racers = [threading.Thread(target=race) for _ in range(16)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    report.equal("of 16 puts of one new key one wins", sorted(won), [200] + 15 * [412])


def _check_parts(report: Report, client: Any) -> None:
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="t/parts")["UploadId"]
    where = {"Bucket": BUCKET, "Key": "t/parts", "UploadId": upload}
    parts, refused = [], []
    for number, body in enumerate((b"a" * PART, b"b" * 100), 1):
        signed = {**where, "PartNumber": number, "ContentLength": len(body)}
        url = client.generate_presigned_url("upload_part", Params=signed, ExpiresIn=60)
        refused += [httpx.put(url, content=wrong).status_code for wrong in (body + b"z", body[:-1])]
        parts.append({"PartNumber": number, "ETag": httpx.put(url, content=body, timeout=60).headers["etag"]})
    report.equal("presigned parts of another length are refused", refused, 4 * [403])
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    report.equal("presigned parts", client.head_object(Bucket=BUCKET, Key="t/parts")["ContentLength"], PART + 100)
    url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "t/a"}, ExpiresIn=1)
    good, tampered = httpx.get(url).status_code, httpx.get(url.replace("/t/a?", "/t/b?")).status_code
    time.sleep(2.5)
    report.equal(
        "presigned reads end, and hold for one key", (good, tampered, httpx.get(url).status_code), (200, 403, 403)
    )
    for item in client.list_objects_v2(Bucket=BUCKET, Prefix="t/").get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
