"""Files that mean harm are refused with a reason, quickly, in little memory, and run nothing."""

import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.datasets import sandbox
from app.datasets import service as datasets
from app.datasets.images import decode_image
from app.errors import Invalid
from pnc_core.errors import BundleError, DataError, TensorFileError
from pnc_core.module.bundle import read_bundle
from pnc_core.preprocessing import Geometry
from pnc_core.tensorfile import read_header
from tests.corpus import Hostile, bombs, corpus, parquet_bomb
from tests.unit import seeds

NEW_MEMORY = 50 * 1024
"""KiB that reading a header may take beyond what the process had."""
SECONDS = 0.1


def check(file: Hostile, path: Path) -> None:
    """What the service does first with this kind of file."""
    if file.kind == "weights":
        read_header(path)
    elif file.kind == "bundle":
        read_bundle(path)
    elif file.kind == "dataset":
        with path.open("rb") as stream:
            datasets.inspect(stream)
    else:
        decode_image(file.content, [Geometry((3, 8, 8))], "body")


def test_every_file_of_the_corpus_is_refused_with_a_reason_and_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = corpus(canary)
    assert len(files) >= 100
    assert len({file.name for file in files}) == len(files)
    for file in files:
        path = tmp_path / "file"
        path.write_bytes(file.content)
        began = time.monotonic()
        with pytest.raises((TensorFileError, BundleError, DataError, Invalid)) as refused:
            check(file, path)
        error = refused.value
        assert "expected" in str(error), file.name
        assert len(str(error)) < 2000, file.name
        assert time.monotonic() - began < 5, file.name
    assert not canary.exists()


def test_header_bombs_are_refused_at_once_and_in_little_memory(tmp_path: Path) -> None:
    """In a process of its own for each, since memory that was once taken is not given back."""
    program = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from pnc_core.errors import TensorFileError\n"
        "from pnc_core.tensorfile import read_header\n"
        "for name in sys.argv[1:]:\n"
        "    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()\n"
        "    try: read_header(Path(name))\n"
        "    except TensorFileError: refused = 1\n"
        "    else: refused = 0\n"
        "    took = time.process_time() - began\n"
        "    print(refused, took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    for bomb in bombs():
        path = tmp_path / bomb.name
        path.write_bytes(bomb.content)
        done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
        refused, took, memory = done.stdout.split()
        assert refused == "1", bomb.name
        assert float(took) < SECONDS, (bomb.name, took)
        assert int(memory) < NEW_MEMORY, (bomb.name, memory)


def test_datasets_are_looked_into_apart(tmp_path: Path) -> None:
    found = sandbox.inspect(io.BytesIO(seeds.parquet([0, 1, 1])), None, tmp_path)
    assert (found.rows, found.counts["1"]) == (3, 2)
    with pytest.raises(Invalid) as refused:
        sandbox.inspect(io.BytesIO(b"PAR1 nothing"), None, tmp_path)
    assert refused.value.problems[0].code == "invalid_parquet"
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_more_images_than_anybody_has_is_refused_before_they_are_counted() -> None:
    began = time.process_time()
    bomb = parquet_bomb(datasets.MAX_ROWS + 10**6)
    made = time.process_time() - began
    with pytest.raises(Invalid, match="split the file"):
        datasets.inspect(io.BytesIO(bomb))
    assert time.process_time() - began < made + 1


def test_a_dataset_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.parquet"
    path.write_bytes(parquet_bomb(datasets.MAX_ROWS))
    assert path.stat().st_size < 10**7
    # How long the bomb itself takes depends on the machine: looked into again and again, it takes too long on any.
    program = """if True:
        import app.datasets.sandbox as a
        look, a.SECONDS = a.datasets.inspect, 1
        a.datasets.inspect = lambda *given: [look(*given) for _ in range(1000)][0]
        a.main()
    """
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", program, str(file.fileno())],
            input=b"[null, null]",
            capture_output=True,
            pass_fds=[file.fileno()],
            timeout=60,
            check=False,
        )
    assert done.returncode < 0
    monkeypatch.setattr(sandbox.sys, "executable", "/bin/false")
    with path.open("rb") as file, pytest.raises(Invalid, match="can be read within"):
        sandbox.inspect(file, None, tmp_path)
