"""The commands of the first page and of the tutorials run in order, each page on a separate service."""

import re
from pathlib import Path

import pytest

from tests.docs.conftest import Read
from tests.unit.docs.pages import DOCS, blocks

pytestmark = pytest.mark.timeout(900)
TUTORIALS = DOCS / "tutorials"


def _seen(output: str) -> list[str]:
    """The most likely class of every displayed prediction."""
    return re.findall(r"class +probability.*?\n[ ─-]*\n? *(\S+) ", output)


def test_the_first_page(read: Read) -> None:
    output = read(blocks(DOCS / "index.md", "bash"))
    alone, composed, again = _seen(output)
    assert (alone != "7", composed, again) == (True, "7", alone)


def test_two_classes(read: Read) -> None:
    output = read(blocks(TUTORIALS / "two-classes.md", "bash"))
    assert "refused, as it should be" in output
    assert "cut from source" in output
    composed, alone = _seen(output)[:2]
    assert (composed, alone != "7") == ("7", True)


def test_several_sources(read: Read) -> None:
    output = read(blocks(TUTORIALS / "several-sources.md", "bash"))
    assert "0 1 2 3 4 5 6 7 8 9" in output
    shares = [float(share) for share in re.findall(r"(?:are|balance|head) +([0-9.]+)", output)]
    assert len(shares) == 3
    assert min(shares) > 0.8


def test_an_edge_device(read: Read, tmp_path: Path) -> None:
    output = read(blocks(TUTORIALS / "edge-device.md", "bash"))
    assert "composed: 7" in output
    assert (tmp_path / "thin.safetensors").stat().st_size * 5 < (tmp_path / "digits-high.safetensors").stat().st_size
    assert (tmp_path / "composed.onnx").exists()


def test_a_network_of_one_s_own(read: Read, tmp_path: Path) -> None:
    output = read(blocks(TUTORIALS / "own-network.md", "bash"))
    assert "cut from source" in output
    assert (tmp_path / "shuffle-module.safetensors").exists()
