"""Sends the corpus of hostile files to the API: every file must be refused, none may run, the service must survive."""

import hashlib
from pathlib import Path

import httpx

from pnc_core.errors import BundleError
from pnc_core.module.bundle import read_bundle
from tests.corpus import Hostile, bombs, corpus, parquet_bomb

SPEC = {"architecture": "cnn", "classes": ["a", "b"], "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}


def feed(url: str, secret: str | None, folder: Path, every: int = 1) -> tuple[int, int, list[str]]:
    """Send the corpus.

    Args:
        url: URL of a service with a deployment `digits`.
        secret: Secret of a key with all scopes; None if no keys are required.
        folder: Folder for bundles, which are read locally, as the command line does.
        every: Send only every so many-th file.

    Returns:
        Number of files, number of refused files, and a list of failures.
    """
    canary = folder / "canary"
    files = [*corpus(canary), *bombs(), Hostile("dataset-bomb", "dataset", parquet_bomb())][::every]
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
        http.post("/v1/models", json={"name": "victim"})
        wrong = [file.name for file in files if not _refused(http, file, folder)]
        if canary.exists():
            wrong.append("the canary was touched")
        if http.get("/readyz").status_code != 200:
            wrong.append("the service is not ready")
    return len(files), len(files) - len(wrong), wrong


def _refused(http: httpx.Client, file: Hostile, folder: Path) -> bool:
    if file.kind == "bundle":
        path = folder / "bundle.safetensors"
        path.write_bytes(file.content)
        try:
            read_bundle(path)
        except BundleError as error:
            return "expected" in str(error)
        return False
    if file.kind == "image":
        answer = http.post(
            "/v1/deployments/digits/predict", content=file.content, headers={"Content-Type": "image/png"}
        )
    else:
        answer = _registered(http, file)
    return 400 <= answer.status_code < 500 and bool(answer.json()["detail"])


def _registered(http: httpx.Client, file: Hostile) -> httpx.Response:
    """The response to the first refused request, or to the last request."""
    digest = hashlib.sha256(file.content).hexdigest()
    upload = http.post("/v1/uploads", json={"bytes": len(file.content), "sha256": digest})
    if upload.is_error:
        return upload
    url = f"/v1/uploads/{upload.json()['id']}"
    http.put(f"{url}/content", content=file.content).raise_for_status()
    http.post(f"{url}/complete").raise_for_status()
    if file.kind == "dataset":
        return http.post("/v1/datasets", json={"name": "victim", "upload": upload.json()["id"]})
    body = {"upload": upload.json()["id"], "spec": SPEC}
    return http.post("/v1/models/victim/versions", json=body)
