"""The `pnc` command as a user runs it: a process, its output and its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from app import demo
from pnc_client import Dataset
from pnc_client.parquet import write_parquet
from pnc_core.identity import fingerprint
from tests.integration.conftest import Up

QUICK = ["-c", "7", "-c", "8", "--epochs", "3", "--set", "batch_size=64", "--set", "shortlist=2", "--set", "views=2"]


def pnc(*arguments: str | Path, url: str = "", code: int = 0) -> Any:
    command = [sys.executable, "-m", "app.cli", *map(str, arguments), "--json"]
    environment = {**os.environ, "PNC_URL": url, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.usefixtures("dataset")  # registers the networks as well
def test_images_without_labels_reach_a_job(service: Up, material: demo.Material, files: Path, tmp_path: Path) -> None:
    url, folder = service.url, tmp_path / "loose"
    folder.mkdir()
    for number, image in enumerate(material.job.images[:150]):
        (folder / f"{number}.png").write_bytes(demo.png(image))
    pushed = pnc("datasets", "push", folder, url=url)
    assert (pushed["rows"], pushed["classes"]) == (150, [])
    parts = ("digits-low", "digits-high", pushed["id"], "-c", "7", "-c", "8", "--preset", "fast")
    refused = pnc("jobs", "create", *parts, url=url, code=4)
    assert "expected images with labels" in refused["error"]["detail"]
    job = pnc("jobs", "create", *parts, "--set", "labels=false", "--watch", url=url)
    assert job["state"] == "succeeded"
    made, weights = tmp_path / "made.safetensors", (files / "digits-low.safetensors", files / "digits-high.safetensors")
    local = ("clone", *weights, folder, "-c", "7", "-c", "8", "--preset", "fast", "--out", made)
    assert pnc(*local, "--set", "labels=false")["classes"] == ["7", "8"]


@pytest.mark.always
def test_the_whole_way(service: Up, dataset: Dataset, material: demo.Material, files: Path, tmp_path: Path) -> None:
    url = service.url
    torch.save({"state_dict": material.target[0].state_dict()}, tmp_path / "low.pth")
    pushed = pnc("models", "push", "by-hand", tmp_path / "low.pth", "--spec", files / "digits-low.json", url=url)
    assert pushed["status"] == "ready"
    assert pushed["fingerprint"] == fingerprint(material.target[0])  # the conversion changed no number
    parts = ("by-hand", "digits-high", dataset.id, *QUICK)
    assert pnc("jobs", "validate", *parts, url=url)["valid"]
    job = pnc("jobs", "create", *parts, "--watch", url=url)
    assert job["state"] == "succeeded"
    assert {t["round"] for t in pnc("jobs", "trials", job["id"], url=url)} >= {0, 1}
    bundle = tmp_path / "full.safetensors"
    pulled = pnc("modules", "pull", job["module"], "--out", bundle, url=url)
    weights = ("--source", files / "digits-high.safetensors", "--target", tmp_path / "low.pth")
    verified = pnc("modules", "verify", bundle, *weights)
    assert verified["digest"] == f"sha256:{pulled['digest']}"
    assert verified["fits_target"]
    assert verified["numbers_compared"] > 0
    pnc("deployments", "create", "typed", "by-hand", url=url)
    pnc("deployments", "attach", "typed", job["module"], url=url)
    image = tmp_path / "image.png"
    image.write_bytes(demo.png(material.test.only(["7"]).images[0]))
    names = [{c["name"] for c in pnc("deployments", "predict", "typed", image, *o, url=url)["classes"]}
             for o in ((), ("--alone",))]  # fmt: skip
    assert names[0] - names[1] == {"7", "8"}
    refused = pnc("deployments", "attach", "typed", "mod_none", url=url, code=4)
    assert refused["error"]["code"] == "not_found"
    pnc("deployments", "delete", "typed", url=url)


def test_a_job_without_a_service_gives_the_bundle_of_a_job_with_one(
    service: Up, dataset: Dataset, material: demo.Material, files: Path, tmp_path: Path
) -> None:
    job = pnc("jobs", "create", "digits-low", "digits-high", dataset.id, *QUICK, "--watch", url=service.url)
    served = next(
        b for b in pnc("modules", "show", job["module"], url=service.url)["bundles"] if b["payload"] == "full"
    )
    networks = (files / "digits-low.safetensors", files / "digits-high.safetensors")
    local = pnc("clone", *networks, files / "digits.parquet", *QUICK, "--out", tmp_path / "module.safetensors")
    assert local["classes"] == ["7", "8"]
    assert (tmp_path / "module.safetensors").stat().st_size == local["bytes"]
    assert local["bytes"] == pytest.approx(served["bytes"], rel=0.5)  # numbers of threads differ, so last bits may
    table = pq.read_table(files / "digits.parquet")
    renamed = table.rename_columns({"image": "shot", "label": "what"})
    pq.write_table(renamed, tmp_path / "odd.parquet")
    columns = ("--image-column", "shot", "--label-column", "what", "--class-names", ",".join(demo.DIGITS))
    odd = pnc("clone", *networks, tmp_path / "odd.parquet", *QUICK, *columns, "--out", tmp_path / "odd.safetensors")
    assert odd["digest"] == local["digest"]


def test_weights_of_another_source_are_no_proof(
    material: demo.Material, files: Path, tmp_path: Path, dataset: Dataset
) -> None:
    write_parquet(tmp_path / "some.parquet", demo.png_rows(material.job), demo.DIGITS)
    networks = (files / "digits-low.safetensors", files / "digits-high.safetensors")
    out = tmp_path / "module.safetensors"
    pnc("clone", *networks, tmp_path / "some.parquet", "-c", "9", "--preset", "fast", "--out", out)
    changed = {n: t + 1 if t.is_floating_point() else t for n, t in safetensors.torch.load_file(networks[1]).items()}
    safetensors.torch.save_file(changed, tmp_path / "other.safetensors")
    refused = pnc("modules", "verify", out, "--source", tmp_path / "other.safetensors", code=1)
    assert refused["error"]["code"] == "mismatch"
