"""Fills PostgreSQL with the rows of a large zoo, by SQL of one statement a table."""

# ruff: noqa: E501 - one line of SQL is one line

from app.zoo import Zoo

EACH = 5
"""Events of a job."""
_SPEC = '{"architecture": "plain", "classes": ["0", "1"], "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}'
_ID = "lpad(to_hex(g), 32, '0')"
_DIGEST = "encode(sha256(('{}' || g)::bytea), 'hex')"
_KEY = "substr({0}, 1, 2) || '/' || substr({0}, 3)"
TARGETS, DEPLOYMENTS = 1000, 20


def _key(kind: str) -> str:
    return _KEY.format(_DIGEST.format(kind))


def _statements(modules: int) -> tuple[str, ...]:
    """One target for a thousand modules, and one job with its events for each module."""
    version = f"'ver_' || lpad(to_hex(mod(g, {TARGETS}) + 1), 32, '0')"
    source = f"'ver_' || lpad(to_hex(mod(g + 1, {TARGETS}) + 1), 32, '0')"
    return (
        f"INSERT INTO models (id, workspace, name, description, last_version, created_at) SELECT 'mdl_' || {_ID}, 'default', 'model-' || g, '', 1, now() FROM generate_series(1, {TARGETS}) g",
        f"INSERT INTO model_versions (id, workspace, model_id, number, status, spec, licence, digest, bytes, key, fingerprint, created_at, lease_token, attempts)"
        f" SELECT 'ver_' || {_ID}, 'default', 'mdl_' || {_ID}, 1, 'ready', '{_SPEC}', '', {_DIGEST.format('v')}, 10, {_key('v')}, {_DIGEST.format('f')}, now(), 1, 0 FROM generate_series(1, {TARGETS}) g",
        f"INSERT INTO datasets (id, workspace, name, digest, bytes, key, rows, classes, counts, created_at) SELECT 'ds_' || {_ID}, 'default', 'data', {_DIGEST.format('d')}, 10, {_key('d')}, 1, '[]', '{{}}', now() FROM generate_series(1, 1) g",
        f"INSERT INTO jobs (id, workspace, state, target_version_id, source_version_id, dataset_id, config, lease_token, attempts, progress, last_seq, created_at, finished_at)"
        f" SELECT 'job_' || {_ID}, 'default', 'succeeded', {version}, {source}, 'ds_' || lpad('1', 32, '0'), '{{\"classes\": [\"7\"]}}', 1, 0, 1, {EACH}, now(), now() FROM generate_series(1, {modules}) g",
        f"INSERT INTO attempts (job_id, number, worker, started_at, ended_at, outcome, reason) SELECT 'job_' || {_ID}, 1, 'w', now() - interval '9 days', now() - interval '9 days', 'succeeded', '' FROM generate_series(1, {modules}) g",
        f"INSERT INTO events (job_id, seq, id, type, state, progress, message, data, created_at) SELECT 'job_' || lpad(to_hex((g - 1) / {EACH} + 1), 32, '0'), mod(g - 1, {EACH}) + 1, 'evt_' || {_ID}, 'progress', 'running', 1, 'inserting', '{{}}', now() - interval '9 days' FROM generate_series(1, {EACH * modules}) g",
        f"INSERT INTO modules (id, workspace, job_id, target_version_id, source_version_id, target_fingerprint, classes, manifest, created_at)"
        f" SELECT 'mod_' || {_ID}, 'default', 'job_' || {_ID}, {version}, {source}, encode(sha256(('f' || mod(g, {TARGETS}) + 1)::bytea), 'hex'), '[\"7\"]', '{{}}', now() FROM generate_series(1, {modules}) g",
        f"INSERT INTO bundles (module_id, payload, digest, bytes, key) SELECT 'mod_' || {_ID}, 'full', {_DIGEST.format('b')}, 10, {_key('b')} FROM generate_series(1, {modules}) g",
        f"INSERT INTO deployments (id, workspace, name, generation, created_at) SELECT 'dep_' || {_ID}, 'default', 'dep-' || g, 1, now() FROM generate_series(1, {DEPLOYMENTS}) g",
        f"INSERT INTO revisions (deployment_id, generation, version_id, refused, created_at) SELECT 'dep_' || {_ID}, 1, 'ver_' || {_ID}, false, now() FROM generate_series(1, {DEPLOYMENTS}) g",
        f"INSERT INTO attachments (deployment_id, generation, module_id, ordinal) SELECT 'dep_' || {_ID}, 1, 'mod_' || {_ID}, 0 FROM generate_series(1, {DEPLOYMENTS}) g",
    )


def fill(zoo: Zoo, modules: int) -> None:
    """Replace all rows by those of a zoo with this number of modules."""
    tables = "webhook_deliveries, events, trials, steps, attempts, attachments, revisions, deployments, bundles, modules, jobs, datasets, model_versions, models, replicas"
    with zoo.database.engine.execution_options(pnc_write=True).begin() as connection:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"TRUNCATE {tables} CASCADE")
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for statement in _statements(modules):
            connection.exec_driver_sql(statement)
    with zoo.database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql("VACUUM ANALYZE")
        connection.exec_driver_sql("SET statement_timeout = '60s'")
