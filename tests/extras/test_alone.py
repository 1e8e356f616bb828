"""Each extra is installed alone into an empty environment, and starts the program that it is made for."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.extras.conftest import ROOT, Alone
from tests.services.database import SECRET_KEY
from tests.services.processes import free_port

Install = Callable[[str], Alone]
SECONDS = 120
pytestmark = pytest.mark.timeout(900)


def wait_until(condition: Callable[[], bool], told: Callable[[], str]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


def is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=20, trust_env=False).status_code == 200
    return False


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def embedded(alone: Alone, **variables: str) -> None:
    """Run `pnc up` until it is ready, ask the API and a page, and end it."""
    service = alone.start("up", "--port", "0", **variables)
    try:
        wait_until(lambda: "ready: " in alone.said("up") or service.poll() is not None, lambda: alone.said("up"))
        found = re.search(r"ready: (http://\S+)", alone.said("up"))
        assert found is not None, alone.said("up")
        assert httpx.get(f"{found[1]}/v1/models", timeout=30, trust_env=False).json()["data"] == []
        assert httpx.get(f"{found[1]}/", timeout=30, trust_env=False).status_code == 200
        end(service)
    finally:
        service.kill()


def test_the_base_is_the_client_and_the_command_line(installed: Install) -> None:
    alone = installed("")
    assert "models" in alone.run("pnc", "--help")
    assert "expected" in alone.run("pnc", "models", "list", "--url", "http://127.0.0.1:1", code=5)
    alone.python("from pnc_client import Client; Client('http://127.0.0.1:1').close()")
    assert "pip install 'pnc-zoo[server]'" in alone.run("pnc", "up", code=1)
    assert "pip install 'pnc-zoo[core]'" in alone.run("pnc", "inspect", "cnn", code=1)
    assert alone.run("python", "-c", "import importlib.util as u; print(u.find_spec('torch'))").strip() == "None"


def test_core_attaches_a_bundle(installed: Install, files: Path) -> None:
    alone = installed("core")
    for file in files.iterdir():
        if file.is_file():
            shutil.copy(file, alone.folder)
    shutil.copy(ROOT / "examples/on_a_device.py", alone.folder)
    assert re.search(r"composed: +7", alone.run("python", "on_a_device.py"))


def test_server_runs_the_embedded_service(installed: Install) -> None:
    embedded(installed("server"))


def settings_of(alone: Alone, database: str, broker: str) -> dict[str, str]:
    shared = {"PNC_STORE_URL": str(alone.folder / "objects"), "PNC_SECRET_KEY": SECRET_KEY}
    return {"PNC_DATABASE_URL": database, "PNC_BROKER_URL": broker, **shared}


def test_cluster_runs_worker_api_and_serving(installed: Install, empty_postgres_url: str, redis_url: str) -> None:
    alone = installed("cluster")
    ports = {"api": free_port(), "serve": free_port()}
    settings = settings_of(alone, empty_postgres_url, redis_url)
    settings["PNC_SERVING_URL"] = f"http://127.0.0.1:{ports['serve']}"
    alone.run("pnc", "migrate", **settings)
    running = [alone.start(name, "--port", str(port), **settings) for name, port in ports.items()]
    running.append(alone.start("worker", **settings))
    try:
        for name, port in ports.items():
            wait_until(lambda port=port: is_ready(f"http://127.0.0.1:{port}"), lambda name=name: alone.said(name))
        wait_until(lambda: "is ready" in alone.said("worker"), lambda: alone.said("worker"))
        alone.python("import boto3; boto3.client('s3', 'us-east-1')")
        for process in running:
            end(process)
    finally:
        for process in running:
            process.kill()


def test_api_runs_the_api_and_the_migration_without_torch(
    installed: Install, empty_postgres_url: str, redis_url: str
) -> None:
    alone, port = installed("api"), free_port()
    settings = settings_of(alone, empty_postgres_url, redis_url)
    alone.run("pnc", "migrate", **settings)
    api = alone.start("api", "--port", str(port), **settings)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: is_ready(url), lambda: alone.said("api"))
        assert httpx.get(f"{url}/", timeout=30, trust_env=False).status_code == 200
        sent = {"name": "digits"}
        assert httpx.post(f"{url}/v1/models", json=sent, timeout=30, trust_env=False).status_code == 201
        end(api)
    finally:
        api.kill()
    assert alone.run("python", "-c", "import importlib.util as u; print(u.find_spec('torch'))").strip() == "None"
    assert "pip install 'pnc-zoo[core]'" in alone.run("pnc", "serve", code=1, **settings)


def test_demo_runs_the_demo(installed: Install) -> None:
    told = installed("demo").run("pnc", "demo")
    assert json.loads(told.rpartition("DEMO ")[2])["restored"] is True


def test_plots_with_the_server_measures_evidence(installed: Install, files: Path) -> None:
    alone = installed("server,plots")
    words = ("--target", files / "digits-low.safetensors", "--source", files / "digits-high.safetensors")
    told = alone.run("pnc", "evidence", files / "full.safetensors", *words, "--data", files / "images", "--out", "out")
    assert list((alone.folder / "out").glob("*.svg")) or list((alone.folder / "out").glob("*.png")), told


def test_onnx_exports_a_composed_network(installed: Install, files: Path) -> None:
    alone = installed("onnx")
    words = (files / "full.safetensors", "--target", files / "digits-low.safetensors", "--out", "composed.onnx")
    told = alone.run("pnc", "export", *words)
    assert (alone.folder / "composed.onnx").stat().st_size > 1000, told


def test_otel_traces_the_embedded_service(installed: Install) -> None:
    alone = installed("otel")
    embedded(alone, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert "OTEL" not in alone.said("up")
    assert "Traceback" not in alone.said("up")


def test_timm_builds_its_architectures(installed: Install) -> None:
    told = installed("timm").run("pnc", "inspect", "timm/resnet10t")
    assert "layer" in told or "blocks" in told, told


def test_hub_looks_for_a_repository(installed: Install) -> None:
    told = installed("hub").run(
        *("pnc", "models", "import", "hf://nobody/nothing", "n", "--url", "http://127.0.0.1:1"),
        code=1, HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert "nobody/nothing" in told
    assert "pip install" not in told, told


def test_mlflow_looks_for_a_version(installed: Install) -> None:
    alone = installed("mlflow")
    told = alone.run(
        *("pnc", "models", "import", "mlflow://models/none/1", "n", "--url", "http://127.0.0.1:1"),
        code=1, MLFLOW_TRACKING_URI=(alone.folder / "mlruns").as_uri(),
    )  # fmt: skip
    assert "pip install" not in told, told


def test_origin_compares_two_files(installed: Install, files: Path) -> None:
    told = installed("origin").run(
        *("pnc", "modules", "origin", files / "full.safetensors", "--source", files / "digits-high.safetensors"),
        "--json",
    )
    assert json.loads(told)["found"] is True
