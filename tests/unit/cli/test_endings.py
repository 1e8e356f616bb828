"""How commands end: codes, messages, and what a terminal is spared."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import safetensors.torch
from rich.console import Console
from typer.testing import CliRunner

from app.cli import app as pnc
from app.cli.screen import plain
from app.cli.watching import trials_view
from tests.unit.cli.conftest import SEARCHED, Run
from tests.unit.client.describing import Described
from tests.unit.pnc_core import nets


def _answer(monkeypatch: pytest.MonkeyPatch, described: Described, answer: httpx.Response | Exception) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(described, "handle_request", handle)


def test_a_refusal_ends_with_4_and_names_every_fault(
    run: Run, described: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [{"pointer": f"/config/{name}", "code": "bad", "detail": f"expected better {name}"} for name in "ab"]
    problem = {"code": "invalid", "detail": "two faults", "request_id": "req_1", "errors": faults}
    _answer(monkeypatch, described, httpx.Response(422, json=problem))
    people, programs = run("jobs", "show", "job_1"), run("jobs", "show", "job_1", "--json")
    assert people.exit_code == programs.exit_code == 4
    assert "expected better a" in people.stderr
    assert "expected better b" in people.stderr
    assert people.stdout == ""
    error = json.loads(programs.stdout)["error"]
    assert (error["code"], error["request_id"], len(error["errors"])) == ("invalid", "req_1", 2)


def test_nobody_there_ends_with_5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNC_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("pnc_client.client.time.sleep", lambda seconds: None)
    done = CliRunner().invoke(pnc, ["models", "list"])
    assert done.exit_code == 5
    assert "pnc up" in done.stderr


def test_a_job_that_failed_ends_with_3(run: Run, described: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {**described.example("Job"), "state": "failed", "problem": {"code": "x", "detail": "no position fits"}}
    normal = described.handle_request

    def handle(request: httpx.Request) -> httpx.Response:
        is_job = request.method == "GET" and request.url.path.startswith("/v1/cloning-jobs/job_")
        is_job = is_job and request.url.path.count("/") == 3
        return httpx.Response(200, json=job) if is_job else normal(request)

    monkeypatch.setattr(described, "handle_request", handle)
    done = run("jobs", "watch", "job_1")
    assert done.exit_code == 3
    assert "no position fits" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "keep=2"), "keep"),
        (("--set", "keeep=1"), "keeep"),
        (("--set", "keep"), "NAME=VALUE"),
        (("--epochs", "0"), "epochs"),
    ],
)
def test_parameters_that_make_no_sense_end_with_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run("jobs", "create", "low", "high", "ds_1", "-c", "7", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_options_go_before_the_file(run: Run, described: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    normal = described.handle_request
    monkeypatch.setattr(described, "handle_request", lambda request: sent.append(request) or normal(request))
    Path("config.json").write_text('{"keep": 0.25, "seed": 1, "position": {"target": "a", "source": "b"}}')
    run("jobs", "create", "low", "high", "ds_1", "-c", "7", "-c", "8", "--config", "config.json", "--seed", "2")
    config = json.loads(sent[0].content)["config"]
    assert (config["classes"], config["keep"], config["seed"]) == (["7", "8"], 0.25, 2)
    assert config["position"] == {"target": "a", "source": "b"}


@SEARCHED
def test_a_network_without_a_description_that_is_not_found_says_what_to_write(run: Run, searched: str) -> None:
    Path("weights.json").unlink()
    done = run("models", "push", "digits", "weights.safetensors")
    assert done.exit_code == 1
    assert "got none; give --architecture and --set, or describe the network in weights.json" in done.stderr


def test_a_network_is_described_by_options(run: Run, described: Described) -> None:
    Path("weights.json").unlink()
    network, _ = nets.network("cnn", 8, 1, "ab", width=4)
    safetensors.torch.save_file(network.state_dict(), "weights.safetensors")
    options = ["--architecture", "cnn", "--classes", "a,b", "--input-size", "1x8x8", "--mean", "0.3", "--std", "0.4"]
    done = run("models", "push", "digits", "weights.safetensors", *options, "--option", "width=4")
    assert done.exit_code == 0, done.output
    assert "create_version" in described.called


def _described(run: Run, monkeypatch: pytest.MonkeyPatch, described: Described, *options: str) -> dict[str, Any]:
    sent: list[httpx.Request] = []
    normal = described.handle_request
    monkeypatch.setattr(described, "handle_request", lambda request: sent.append(request) or normal(request))
    done = run("models", "push", "digits", "weights.safetensors", *options)
    assert done.exit_code == 0, done.output
    bodies = (request.content for request in sent if request.headers.get("content-type") == "application/json")
    return next(body["spec"] for body in map(json.loads, bodies) if "spec" in body)


def test_preprocessing_is_described_by_options(run: Run, described: Described, monkeypatch: pytest.MonkeyPatch) -> None:
    resize = ["--resize", "shorter-side", "--resize-size", "9", "--interpolation", "bicubic", "--no-antialias"]
    spec = _described(run, monkeypatch, described, *resize, "--value-range", "0..255")
    assert spec["preprocessing"] == {
        "resize": "shorter-side",
        "resize_size": 9,
        "interpolation": "bicubic",
        "antialias": False,
        "value_range": "0..255",
    }


def test_a_crop_share_is_the_side_that_timm_resizes_to(
    run: Run, described: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _described(run, monkeypatch, described, "--input-size", "1x8x8", "--crop-share", "0.875")
    assert spec["preprocessing"] == {"resize_size": 9}


@pytest.mark.parametrize("options", [["--crop-share", "1.5"], ["--crop-share", "0.9", "--resize-size", "9"]])
def test_a_crop_share_that_makes_no_sense_is_refused(run: Run, options: list[str]) -> None:
    done = run("models", "push", "digits", "weights.safetensors", *options)
    assert done.exit_code == 2
    assert "crop_share: expected a share above 0 and at most 1" in done.stderr


def test_names_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb\x07") == "a�[2Jb�"


def test_trials_are_plotted_by_size_and_score() -> None:
    trials = [
        {"round": r, "target_position": f"a{p}", "source_position": "b[red]", "score": s, "parameters": p}
        for r, s, p in ((0, 0.1, 10), (0, 0.9, 1000), (1, 0.95, 500))
    ]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(trials_view(trials))
    lines = captured.get().splitlines()
    assert "★" in lines[0]
    assert lines[0].startswith(" 0.950 │")
    assert lines[9].startswith(" 0.100 │○")
    assert "b[red]" in captured.get()


def test_of_a_job_that_went_on_the_last_attempt_s_trials_count() -> None:
    trials = [
        {"round": 1, "target_position": "a", "source_position": "b", "score": s, "parameters": 10, "attempt": attempt}
        for attempt, s in ((1, 0.9), (2, 0.7))
    ]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(trials_view(trials))
    assert "0.700" in captured.get()
    assert "0.900" not in captured.get()


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("cryptography", ["keys", "pair", "mine"], "core"),
        ("sqlalchemy", ["up", "--port", "0"], "server"),
        ("celery", ["worker"], "cluster"),
        ("sklearn", ["demo"], "demo"),
    ],
)
def test_a_missing_package_is_named_with_what_brings_it(
    tmp_path: Path, package: str, words: list[str], extra: str
) -> None:
    program = f"import sys\nsys.modules[{package!r}] = None\nfrom app.cli import main\nmain()"
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert f"pip install 'pnc-zoo[{extra}]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("out", "told"), [("nowhere/m.safetensors", "create nowhere first"), ("low.safetensors", "choose another name")]
)
def test_where_a_bundle_goes_is_looked_at_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, out: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("low.safetensors", "high.safetensors"):
        Path(name).write_bytes(b"weights")
    Path("images").mkdir()
    done = CliRunner().invoke(pnc, ["clone", "low.safetensors", "high.safetensors", "images", "-c", "2", "--out", out])
    assert done.exit_code == 2
    assert told in done.stderr
    assert Path("low.safetensors").read_bytes() == b"weights"


def test_names_that_do_not_fit_the_classes_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "cat" / "1.png").write_bytes(b"x")
    done = run("datasets", "push", str(tmp_path / "pets"), "--classes", "a,b")
    assert done.exit_code == 1
    assert "expected 1 names, one for each of ['cat'], got 2" in done.stderr
