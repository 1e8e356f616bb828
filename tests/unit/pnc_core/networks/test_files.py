import subprocess
import sys
from pathlib import Path

import safetensors.torch
import torch


def test_safetensors_are_passed_on_without_torch(tmp_path: Path) -> None:
    safetensors.torch.save_file({"fc.weight": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    program = (
        "import sys\nfor name in ('torch', 'safetensors', 'numpy'): sys.modules[name] = None\n"
        "from pathlib import Path\nfrom pnc_core.networks.files import as_safetensors\n"
        "with as_safetensors(Path('a.safetensors')) as file: print(file)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={"PYTHONPATH": str(Path.cwd())}, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == ("a.safetensors", 0), done.stderr
