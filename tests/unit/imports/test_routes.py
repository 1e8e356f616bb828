"""Imports over HTTP."""

import httpx
import pytest

SPEC = {"architecture": "cnn", "classes": ["a", "b"], "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}


def test_an_import_is_queued_listed_and_cancelled(http: httpx.Client) -> None:
    made = http.post("/v1/models/import", json={"source": "torchvision/resnet18@IMAGENET1K_V1"})
    assert made.status_code == 202
    row = made.json()
    assert (row["state"], row["model"], row["version"]) == ("queued", "resnet18", None)
    assert made.headers["location"] == f"/v1/imports/{row['id']}"
    assert [one["id"] for one in http.get("/v1/imports").json()["data"]] == [row["id"]]
    assert http.post(f"/v1/imports/{row['id']}/cancel").json()["state"] == "cancelled"
    assert http.get(f"/v1/imports/{row['id']}").json()["state"] == "cancelled"
    assert http.post(f"/v1/imports/{row['id']}/cancel").status_code == 409
    assert http.get("/v1/imports/imp_0").status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"source": "resnet18"}, "/source", "invalid_source"),
        ({"source": "https://host.example/a.th", "spec": SPEC}, "/source", "host_not_allowed"),
        ({"source": "https://huggingface.co/a.th"}, "/spec", "spec_required"),
        ({"source": "https://huggingface.co/a.th?token=1", "spec": SPEC}, "/source", "invalid_source"),
        ({"source": "https://a:b@huggingface.co/a.th", "spec": SPEC}, "/source", "invalid_source"),
        ({"source": "timm/resnet18", "spec": SPEC}, "/spec", "spec_given"),
        ({"source": "timm/resnet18", "name": "A b"}, "/name", "string_pattern_mismatch"),
    ],
)
def test_an_import_that_cannot_succeed_is_refused(
    http: httpx.Client, body: dict[str, object], pointer: str, code: str
) -> None:
    answer = http.post("/v1/models/import", json=body)
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert (fault["pointer"], fault["code"]) == (pointer, code)


def test_a_workspace_has_a_limit_of_unfinished_imports(http: httpx.Client) -> None:
    answers = [http.post("/v1/models/import", json={"source": "timm/resnet18"}).status_code for _ in range(21)]
    assert answers == [202] * 20 + [409]
