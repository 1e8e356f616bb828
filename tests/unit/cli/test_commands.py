"""Every operation of the service has a command, and every command speaks to people and to programs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.client.describing import Described, operations

COMMANDS: dict[str, str] = {
    "healthz": "status",
    "readyz": "status",
    "create_upload": "models push digits weights.safetensors",
    "put_content": "datasets push data.parquet",
    "complete_upload": "datasets push data.parquet",
    "create_model": "models create digits",
    "list_models": "models list",
    "get_model": "models show digits",
    "change_model": "models edit digits --restore",
    "archive_model": "models delete digits",
    "plan_model_purge": "models purge digits --dry-run",
    "purge_model": "models purge digits --yes",
    "change_version": "models restore digits@1",
    "check_version": "models check digits@1 --dataset ds_1",
    "archive_version": "models delete digits@1",
    "plan_version_purge": "models purge digits@1 --dry-run",
    "purge_version": "models purge digits@1 --yes",
    "create_version": "models push digits weights.safetensors",
    "list_versions": "models show digits",
    "get_version": "models show digits@1",
    "list_classes": "models classes digits@1 goldfish",
    "validate_spec": "models push digits weights.safetensors",
    "download_weights": "models export digits@1 --to exported",
    "create_import": "models import torchvision/resnet18 --on-service",
    "list_imports": "models imports",
    "get_import": "models import torchvision/resnet18 --on-service",
    "cancel_import": "models imports --cancel imp_1",
    "set_alias": "models alias digits production 1",
    "delete_alias": "models alias digits production --delete",
    "create_dataset": "datasets push data.parquet",
    "list_datasets": "datasets list",
    "get_dataset": "datasets show ds_1",
    "change_dataset": "datasets restore ds_1",
    "archive_dataset": "datasets delete ds_1",
    "plan_dataset_purge": "datasets purge ds_1 --dry-run",
    "purge_dataset": "datasets purge ds_1 --yes",
    "list_unreadable": "datasets unreadable ds_1",
    "download_dataset": "datasets download ds_1 --out images.parquet",
    "create_job": "jobs create low high ds_1 -c 7 --preset fast --set locality=strict",
    "validate_job": "jobs validate low high ds_1 -c 7",
    "search_classes": "classes goldfish",
    "recommend": "recommend low ds_1 -c 7",
    "list_jobs": "jobs list",
    "get_job": "jobs show job_1",
    "cancel_job": "jobs cancel job_1",
    "pause_job": "jobs pause job_1",
    "resume_job": "jobs resume job_1",
    "retry_job": "jobs retry job_1",
    "list_attempts": "jobs attempts job_1",
    "list_events": "jobs logs job_1",
    "stream_events": "jobs watch job_1",
    "list_trials": "jobs trials job_1",
    "list_modules": "modules list",
    "get_module": "modules show mod_1",
    "change_module": "modules restore mod_1",
    "archive_module": "modules delete mod_1",
    "plan_module_purge": "modules purge mod_1 --dry-run",
    "purge_module": "modules purge mod_1 --yes",
    "get_manifest": "modules show mod_1",
    "download_bundle": "modules pull mod_1",
    "put_deployment": "deployments create digits low",
    "list_deployments": "deployments list",
    "get_deployment": "deployments show digits",
    "delete_deployment": "deployments delete digits",
    "set_modules": "deployments set digits mod_1 mod_2",
    "list_revisions": "deployments revisions digits",
    "list_replicas": "deployments replicas digits",
    "rollback": "deployments rollback digits 1",
    "put_canary": "deployments canary set digits mod_1 --share 0.2 --shadow",
    "get_canary": "deployments canary show digits",
    "promote_canary": "deployments canary promote digits",
    "end_canary": "deployments canary end digits",
    "attach_module": "deployments attach digits mod_1",
    "detach_module": "deployments detach digits mod_1",
    "create_key": "keys create ci -s read",
    "list_keys": "keys list",
    "revoke_key": "keys revoke key_1",
    "get_workspace": "whoami",
    "change_workspace": "workspaces signatures --required",
    "list_audit": "audit",
    "trust_key": "keys trust release ed25519:0",
    "list_trusted_keys": "keys trusted",
    "distrust_key": "keys distrust release",
    "put_signature": "modules sign mod_1 --key signer.key",
    "get_signature": "modules signature mod_1",
    "predict": "deployments predict digits image.png --module-set main",
    "predict_batch": "deployments predict digits image.png image.png",
    "create_webhook": "webhooks create https://hooks.example -e job.succeeded",
    "list_webhooks": "webhooks list",
    "get_webhook": "webhooks show whk_1",
    "change_webhook": "webhooks edit whk_1 --enable",
    "delete_webhook": "webhooks delete whk_1",
    "rotate_webhook": "webhooks rotate whk_1",
    "test_webhook": "webhooks test whk_1",
    "list_deliveries": "webhooks deliveries whk_1",
    "redeliver": "webhooks redeliver whk_1 dlv_1",
}
WITHOUT_COMMAND = {
    "get_upload": "an upload is asked for its bytes only after a break",
    "delete_upload": "a command announces an upload and uses it; nobody learns its id",
}


def test_every_operation_is_in_the_table(document: dict[str, Any]) -> None:
    assert set(COMMANDS) | set(WITHOUT_COMMAND) == operations(document)


@pytest.mark.parametrize("operation", COMMANDS)
def test_the_command_calls_its_operation(run: Run, described: Described, operation: str) -> None:
    done = run(*COMMANDS[operation].split())
    assert done.exit_code == 0, done.output
    assert operation in described.called
    assert done.stdout.strip()


@pytest.mark.parametrize("command", sorted(set(COMMANDS.values())))
def test_with_json_there_is_one_document_and_nothing_else(run: Run, command: str) -> None:
    done = run(*command.split(), "--json")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["cancel", "pause", "resume"])
def test_what_became_of_a_job_is_one_line(run: Run, command: str) -> None:
    assert re.fullmatch(r"job_\w+: [a-z]+\n", run("jobs", command, "job_1").stdout)


def test_a_job_that_is_tried_again_is_shown_whole(run: Run) -> None:
    said = run("jobs", "retry", "job_1").stdout
    assert re.search(r"job_\w+", said)
    assert "submitted" in said


def test_a_card_comes_from_a_file_or_from_the_command_line(run: Run, described: Described, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("# Digits\n\nTrained on scans.\n")
    assert run("models", "edit", "digits", "--card", "card.md").exit_code == 0
    assert json.loads(described.sent["change_model"]) == {"description": "# Digits\n\nTrained on scans.\n"}
    both = run("models", "edit", "digits", "--card", "card.md", "--description", "Digits")
    assert both.exit_code == 2
    assert "got both" in both.output


def test_a_canary_is_sent_with_its_share_and_mode_and_shown_with_its_counts(run: Run, described: Described) -> None:
    assert run("deployments", "canary", "set", "digits", "mod_1", "mod_2", "--share", "0.25").exit_code == 0
    assert json.loads(described.sent["put_canary"]) == {"modules": ["mod_1", "mod_2"], "share": 0.25, "mode": "canary"}
    assert run("deployments", "canary", "set", "digits", "--shadow").exit_code == 0
    assert json.loads(described.sent["put_canary"]) == {"modules": [], "share": 0.1, "mode": "shadow"}
    said = " ".join(run("deployments", "canary", "show", "digits").stdout.split())
    assert "905 by the attached modules, 95 by the canary" in said
    assert "91 agree, 3 differ" in said
    assert "canary, 10.0% of the requests" in run("deployments", "show", "digits").stdout
    assert run("deployments", "canary", "set", "digits", "--share", "2").exit_code == 2
