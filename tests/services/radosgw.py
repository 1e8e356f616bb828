"""A real S3 server: Ceph's radosgw on one monitor and one object daemon, all below one directory.

`kill` and `restart` affect only radosgw, which stores no data, so objects survive.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import boto3
from botocore.config import Config
from mypy_boto3_s3 import S3Client

from tests.services.processes import Process
from tests.services.programs import find
from tests.services.service import HOST, Service, running

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
BUCKET = "pnc"
_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
_CAPS = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
    "client.rgw": ("mon", "allow rw", "osd", "allow rwx"),
}
"""Capabilities by user; the object daemon starts only if all these users have keys."""
_CONFIG = """[global]
fsid = {fsid}
mon host = [v2:{host}:{mon_port}]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
public addr = {host}
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
osd crush chooseleaf type = 0
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon max pg per osd = 5000
mon data = {directory}/mon
mon data avail crit = 1
mon data avail warn = 2
paxos propose interval = 0.02
paxos min wait = 0.01
mon cluster log file = {directory}/cluster.log
log file = {directory}/$name.log
admin socket = {directory}/$name.asok
run dir = {directory}
osd objectstore = memstore
memstore device bytes = 4294967296
osd data = {directory}/osd
keyring = {directory}/keyring
[client.rgw]
rgw frontends = beast endpoint={host}:{port}
rgw dns name = localhost
rgw data = {directory}/rgw
rgw enable usage log = false
rgw enable ops log = false
rgw cache enabled = false
rgw run sync thread = false
rgw gc max objs = 4
rgw lc max objs = 4
rgw usage max shards = 1
rgw data log num shards = 1
rgw thread pool size = 32
"""


class S3(Service):
    """An S3 server; the bucket `pnc` exists after the start."""

    name = "s3"

    def __init__(self, directory: Path, *, lasting: bool = False) -> None:
        super().__init__(directory, lasting=lasting)
        self._mon_port = self._kept_port("mon-port")
        self._monitor = self._daemon("ceph-mon", "-i", "a")
        self._objects = self._daemon("ceph-osd", "-i", "0")

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://{HOST}:{self.port}"

    def environment(self, bucket: str = BUCKET) -> dict[str, str]:
        """See `Service.environment`."""
        return {
            "PNC_STORE_URL": f"s3://{bucket}",
            "PNC_STORE_ENDPOINT": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self) -> S3Client:
        """An S3 client with the server's keys."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"mode": "standard", "total_max_attempts": 5}, s3={"addressing_style": "path"}),
        )

    def start(self) -> Self:
        """See `Service.start`; if the monitor or the object daemon is not running, the server starts empty."""
        is_new = not (self._monitor.running and self._objects.running)
        if is_new:
            self._begin()
        super().start()
        if is_new:
            self._admin("user", "create", "--uid=test", "--display-name=test", f"--access-key={ACCESS_KEY}")
            client = self.client()
            client.create_bucket(Bucket=BUCKET)
            client.close()
        return self

    def answers(self) -> bool:
        """See `Service.answers`."""
        with suppress(URLError, OSError):
            try:
                with urlopen(self.endpoint, timeout=2):
                    return True
            except HTTPError as error:
                with error:
                    return error.code < 500
        return False

    def stop(self) -> None:
        """Stop radosgw, object daemon and monitor; all objects are lost, because they are in memory."""
        self.front.stop()
        self._objects.kill()
        self._monitor.kill()

    def _front(self) -> Process:
        return self._daemon("radosgw", "-n", "client.rgw")

    def _daemon(self, program: str, *options: str) -> Process:
        command = [find(program, _PACKAGES), "-f", *options, "-c", str(self._config)]
        return Process(command, self.directory, lasting=self.lasting)

    @property
    def _config(self) -> Path:
        return self.directory / "ceph.conf"

    def _begin(self) -> None:
        self.stop()
        for name in ("mon", "osd", "rgw"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir()
        fsid = str(uuid.uuid4())
        facts = {"host": HOST, "port": self.port, "mon_port": self._mon_port, "directory": self.directory}
        self._config.write_text(_CONFIG.format(fsid=fsid, **facts))
        self._make_keys()
        monmap = str(self.directory / "monmap")
        self._ceph("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", self._mon_address, monmap)
        self._ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(self.directory / "keyring"))
        self._monitor.start()
        osd = str(uuid.uuid4())
        self._ceph("ceph", "osd", "new", osd, "0")
        self._ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._objects.start()

    @property
    def _mon_address(self) -> str:
        return f"[v2:{HOST}:{self._mon_port}]"

    def _make_keys(self) -> None:
        keyring = self.directory / "keyring"
        keyring.unlink(missing_ok=True)
        self._ceph("ceph-authtool", "--create-keyring", str(keyring))
        for name, caps in _CAPS.items():
            pairs = zip(caps[::2], caps[1::2], strict=True)
            given = [word for subsystem, cap in pairs for word in ("--cap", subsystem, cap)]
            self._ceph("ceph-authtool", str(keyring), "--gen-key", "-n", name, *given)

    def _admin(self, *words: str) -> None:
        self._ceph("radosgw-admin", "-n", "client.rgw", *words, f"--secret-key={SECRET_KEY}")

    def _ceph(self, program: str, *words: str) -> None:
        environment = {**os.environ, "CEPH_CONF": str(self._config)}
        command = [find(program, _PACKAGES), *words]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


@contextmanager
def s3(directory: Path) -> Iterator[S3]:
    """Run an S3 server within a block."""
    with running(S3, directory) as service:
        yield service
