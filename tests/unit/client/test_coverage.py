"""Every operation of the service has a method of the client; the document is the measure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pnc_client import Client
from pnc_core.config import CloneConfig
from tests.unit import seeds
from tests.unit.client.describing import Described, described_by, operations

CONFIG = CloneConfig(classes=("7",))
METHODS: dict[str, Callable[[Client, Path], Any]] = {
    "healthz": lambda client, _: client.alive(),
    "readyz": lambda client, _: client.ready(),
    "create_upload": lambda client, file: client.uploads.push(file),
    "put_content": lambda client, file: client.uploads.push(file),
    "complete_upload": lambda client, file: client.uploads.push(file),
    "get_upload": lambda client, _: client.uploads.get("up_1"),
    "delete_upload": lambda client, _: client.uploads.delete("up_1"),
    "create_model": lambda client, _: client.models.create("a"),
    "list_models": lambda client, _: list(client.models.list()),
    "get_model": lambda client, _: client.models.get("a"),
    "change_model": lambda client, _: client.models.change("a", archived=False),
    "archive_model": lambda client, _: client.models.archive("a"),
    "plan_model_purge": lambda client, _: client.models.purge("a", dry_run=True),
    "purge_model": lambda client, _: client.models.purge("a"),
    "change_version": lambda client, _: client.models.change_version("a", 1, archived=False),
    "check_version": lambda client, _: client.models.check_on("a", 1, "ds_1"),
    "archive_version": lambda client, _: client.models.archive_version("a", 1),
    "plan_version_purge": lambda client, _: client.models.purge_version("a", 1, dry_run=True),
    "purge_version": lambda client, _: client.models.purge_version("a", 1),
    "create_version": lambda client, file: client.models.push("a", seeds.network(), file),
    "list_versions": lambda client, _: list(client.models.versions("a")),
    "get_version": lambda client, _: client.models.version("a", 1),
    "list_classes": lambda client, _: list(client.models.classes("a", 1, "goldfish")),
    "validate_spec": lambda client, _: client.models.check(seeds.network()),
    "download_weights": lambda client, file: client.models.download("a@1", file),
    "create_import": lambda client, _: client.imports.create("torchvision/resnet18"),
    "list_imports": lambda client, _: list(client.imports.list()),
    "get_import": lambda client, _: client.imports.get("imp_1").wait(),
    "cancel_import": lambda client, _: client.imports.cancel("imp_1"),
    "set_alias": lambda client, _: client.models.set_alias("a", "production", 1),
    "delete_alias": lambda client, _: client.models.delete_alias("a", "production"),
    "create_dataset": lambda client, file: client.datasets.push(file.rename(file.with_suffix(".parquet")), name="a"),
    "list_datasets": lambda client, _: list(client.datasets.list()),
    "get_dataset": lambda client, _: client.datasets.get("ds_1"),
    "change_dataset": lambda client, _: client.datasets.change("ds_1", archived=False),
    "archive_dataset": lambda client, _: client.datasets.archive("ds_1"),
    "plan_dataset_purge": lambda client, _: client.datasets.purge("ds_1", dry_run=True),
    "purge_dataset": lambda client, _: client.datasets.purge("ds_1"),
    "list_unreadable": lambda client, _: list(client.datasets.unreadable("ds_1")),
    "download_dataset": lambda client, file: client.datasets.download("ds_1", file),
    "create_job": lambda client, _: client.jobs.create("a", "b", "ds_1", CONFIG),
    "validate_job": lambda client, _: client.jobs.validate("a", "b", "ds_1", CONFIG),
    "search_classes": lambda client, _: client.jobs.classes("cat"),
    "recommend": lambda client, _: client.jobs.recommend("a", ["cat"], "ds_1"),
    "list_jobs": lambda client, _: list(client.jobs.list()),
    "get_job": lambda client, _: client.jobs.get("job_1"),
    "cancel_job": lambda client, _: client.jobs.cancel("job_1"),
    "pause_job": lambda client, _: client.jobs.pause("job_1"),
    "resume_job": lambda client, _: client.jobs.resume("job_1"),
    "retry_job": lambda client, _: client.jobs.retry("job_1"),
    "list_attempts": lambda client, _: list(client.jobs.attempts("job_1")),
    "list_events": lambda client, _: list(client.jobs.history("job_1")),
    "stream_events": lambda client, _: list(client.jobs.events("job_1")),
    "list_trials": lambda client, _: list(client.jobs.trials("job_1")),
    "list_modules": lambda client, _: list(client.modules.list()),
    "get_module": lambda client, _: client.modules.get("mod_1"),
    "change_module": lambda client, _: client.modules.change("mod_1", archived=False),
    "archive_module": lambda client, _: client.modules.archive("mod_1"),
    "plan_module_purge": lambda client, _: client.modules.purge("mod_1", dry_run=True),
    "purge_module": lambda client, _: client.modules.purge("mod_1"),
    "get_manifest": lambda client, _: client.modules.manifest("mod_1"),
    "download_bundle": lambda client, file: client.modules.get("mod_1").download(file),
    "create_composition": lambda client, _: client.compositions.create("a", ["mod_1"], "ds_1"),
    "list_compositions": lambda client, _: list(client.compositions.list(module="mod_1")),
    "get_composition": lambda client, _: client.compositions.get("cmp_1").wait(),
    "cancel_composition": lambda client, _: client.compositions.cancel("cmp_1"),
    "delete_composition": lambda client, _: client.compositions.delete("cmp_1"),
    "download_composition": lambda client, file: client.compositions.get("cmp_1").download(file),
    "put_deployment": lambda client, _: client.deployments.create("a", "b"),
    "list_deployments": lambda client, _: list(client.deployments.list()),
    "get_deployment": lambda client, _: client.deployments.get("a"),
    "delete_deployment": lambda client, _: client.deployments.delete("a"),
    "set_modules": lambda client, _: client.deployments.set_modules("a", ["mod_1"]),
    "list_revisions": lambda client, _: list(client.deployments.revisions("a")),
    "list_replicas": lambda client, _: list(client.deployments.replicas("a")),
    "rollback": lambda client, _: client.deployments.rollback("a", 1),
    "put_canary": lambda client, _: client.deployments.put_canary("a", ["mod_1"], share=0.5),
    "get_canary": lambda client, _: client.deployments.canary("a"),
    "promote_canary": lambda client, _: client.deployments.promote_canary("a"),
    "end_canary": lambda client, _: client.deployments.end_canary("a"),
    "attach_module": lambda client, _: client.deployments.attach("a", "mod_1"),
    "detach_module": lambda client, _: client.deployments.detach("a", "mod_1"),
    "create_key": lambda client, _: client.keys.create("ci", ["read"], days=1),
    "list_keys": lambda client, _: list(client.keys.list()),
    "revoke_key": lambda client, _: client.keys.revoke("key_1"),
    "get_workspace": lambda client, _: client.keys.workspace(),
    "change_workspace": lambda client, _: client.keys.change_workspace(require_signature=True),
    "list_audit": lambda client, _: list(client.keys.audit(key="key_1")),
    "trust_key": lambda client, _: client.signatures.trust("release", "ed25519:0"),
    "list_trusted_keys": lambda client, _: list(client.signatures.trusted()),
    "distrust_key": lambda client, _: client.signatures.distrust("release"),
    "put_signature": lambda client, _: client.signatures.put("mod_1", "{}"),
    "get_signature": lambda client, _: client.signatures.get("mod_1"),
    "predict": lambda client, _: client.deployments.predict("a", b"\x89PNG"),
    "predict_batch": lambda client, _: client.deployments.predict_batch("a", [b"\x89PNG"], top=1),
    "create_webhook": lambda client, _: client.webhooks.create("https://hooks.example", events=["job.failed"]),
    "list_webhooks": lambda client, _: list(client.webhooks.list()),
    "get_webhook": lambda client, _: client.webhooks.get("whk_1"),
    "change_webhook": lambda client, _: client.webhooks.change("whk_1", enabled=True, events=["job.failed"]),
    "delete_webhook": lambda client, _: client.webhooks.delete("whk_1"),
    "rotate_webhook": lambda client, _: client.webhooks.rotate("whk_1"),
    "test_webhook": lambda client, _: client.webhooks.test("whk_1"),
    "list_deliveries": lambda client, _: list(client.webhooks.deliveries("whk_1")),
    "redeliver": lambda client, _: client.webhooks.redeliver("whk_1", "dlv_1"),
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The service's OpenAPI document."""
    return described_by(tmp_path_factory.mktemp("zoo"))


def test_every_operation_is_in_the_table(document: dict[str, Any]) -> None:
    assert set(METHODS) == operations(document)


@pytest.mark.parametrize("operation", METHODS)
def test_the_method_calls_its_operation(document: dict[str, Any], tmp_path: Path, operation: str) -> None:
    file = tmp_path / "file.safetensors"
    file.write_bytes(seeds.tensors())
    described = Described(document)
    with Client("http://localhost:8000", transport=described) as client:
        METHODS[operation](client, file)
    assert operation in described.called
