"""Fills every large table with 100,000 rows, and reads the plans of statements."""

# ruff: noqa: E501 - one line of SQL is one line

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, text

from app.zoo import Zoo

MANY = 100_000
LARGE = frozenset(
    {
        "attempts", "attachments", "audit", "bundles", "datasets", "deployments", "events", "idempotency_keys", "jobs",
        "keys", "model_versions", "models", "modules", "revisions", "steps", "trials", "uploads", "webhook_deliveries",
    }
)  # fmt: skip
HOOKS = 50
_SPEC = '{"architecture": "plain", "classes": ["0", "1"], "input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}'
_DIGEST = "encode(sha256(('{kind}' || g)::bytea), 'hex')"


def _key(kind: str) -> str:
    return f"substr({_DIGEST.format(kind=kind)}, 1, 2) || '/' || substr({_DIGEST.format(kind=kind)}, 3)"


_ID, _OLD = "lpad(to_hex(g), 32, '0')", "now() - interval '60 days' + g * interval '50 seconds'"
"""SQL of an id that grows with time; the rows are spread over the last 58 days."""
_FILLED = (
    f"INSERT INTO models (id, workspace, name, description, last_version, created_at)"
    f" SELECT 'mdl_' || {_ID}, 'default', 'model-' || g, '', 1, {_OLD} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO model_versions (id, workspace, model_id, number, status, spec, licence, digest, bytes, key, fingerprint,"
    f" created_at, lease_token, attempts) SELECT 'ver_' || {_ID}, 'default', 'mdl_' || {_ID}, 1, 'ready',"
    f""" '{_SPEC}', '', {_DIGEST.format(kind="v")}, 10, {_key("v")}, {_DIGEST.format(kind="f")}, {_OLD}, 1, 0"""
    f" FROM generate_series(1, {MANY}) g",
    f"INSERT INTO datasets (id, workspace, name, digest, bytes, key, rows, classes, counts, created_at)"
    f" SELECT 'ds_' || {_ID}, 'default', 'data', {_DIGEST.format(kind='d')}, 10, {_key('d')}, 1, '[]', '{{}}', {_OLD}"
    f" FROM generate_series(1, {MANY}) g",
    f"INSERT INTO uploads (id, workspace, bytes, digest, key, created_at, completed_at, used_at)"
    f" SELECT 'up_' || {_ID}, 'default', 10, {_DIGEST.format(kind='v')}, {_key('v')}, {_OLD}, {_OLD}, {_OLD}"
    f" FROM generate_series(1, {MANY}) g",
    f"INSERT INTO jobs (id, workspace, state, target_version_id, source_version_id, dataset_id, config, lease_token,"
    f" attempts, progress, last_seq, created_at, finished_at) SELECT 'job_' || {_ID}, 'default',"
    f" CASE WHEN mod(g, 10) = 0 THEN 'failed' ELSE 'succeeded' END, 'ver_' || {_ID}, 'ver_' || {_ID}, 'ds_' || {_ID},"
    f""" '{{"classes": ["7"]}}', 1, 0, 1, 1, {_OLD}, {_OLD} FROM generate_series(1, {MANY}) g""",
    f"INSERT INTO attempts (job_id, number, worker, started_at, ended_at, outcome, reason)"
    f" SELECT 'job_' || {_ID}, 1, 'w', {_OLD}, {_OLD}, 'succeeded', '' FROM generate_series(1, {MANY}) g",
    f"INSERT INTO events (job_id, seq, id, type, state, progress, message, data, created_at) SELECT 'job_' || {_ID}, 1,"
    f" 'evt_' || {_ID}, 'state', 'succeeded', 1, '', '{{}}', {_OLD} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO trials (id, job_id, attempt, target_position, source_position, round, score, created_at)"
    f" SELECT 'trl_' || {_ID}, 'job_' || {_ID}, 1, 'a', 'b', 0, 1, {_OLD} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO steps (id, job_id, name, shared, digest, key, created_at, lease_token, attempts) SELECT 'stp_' || {_ID},"
    f" 'job_' || {_ID}, 's', false, {_DIGEST.format(kind='s')}, {_key('s')}, {_OLD}, 1, 0"
    f" FROM generate_series(1, {MANY}) g",
    f"INSERT INTO modules (id, workspace, job_id, target_version_id, source_version_id, target_fingerprint, classes,"
    f" manifest, created_at) SELECT 'mod_' || {_ID}, 'default', 'job_' || {_ID}, 'ver_' || {_ID}, 'ver_' || {_ID},"
    f" {_DIGEST.format(kind='f')}, '[\"7\"]', '{{}}', {_OLD} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO bundles (module_id, payload, digest, bytes, key) SELECT 'mod_' || {_ID}, 'full',"
    f" {_DIGEST.format(kind='b')}, 10, {_key('b')} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO deployments (id, workspace, name, generation, created_at, deleted_at) SELECT 'dep_' || {_ID}, 'default',"
    f" 'dep-' || g, 1, {_OLD}, CASE WHEN g > 20 THEN {_OLD} END FROM generate_series(1, {MANY}) g",
    f"INSERT INTO revisions (deployment_id, generation, version_id, refused, created_at) SELECT 'dep_' || {_ID}, 1,"
    f" 'ver_' || {_ID}, false, {_OLD} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO attachments (deployment_id, generation, module_id, ordinal) SELECT 'dep_' || {_ID}, 1, 'mod_' || {_ID},"
    f" 0 FROM generate_series(1, {MANY}) g",
    f"INSERT INTO audit (id, workspace, at, key_id, who, action, method, path, address, outcome, request_id) SELECT"
    f" 'aud_' || {_ID}, 'default', {_OLD}, 'key_' || mod(g, 100), '', 'a', 'GET', '/', '', '200', ''"
    f" FROM generate_series(1, {MANY}) g",
    f"INSERT INTO keys (id, workspace, name, digest, hint, scopes, created_at) SELECT 'key_' || {_ID}, 'default', 'k',"
    f" {_DIGEST.format(kind='k')}, 'pnc_', '[]', {_OLD} FROM generate_series(1, {MANY}) g",
    f"INSERT INTO idempotency_keys (workspace, key, request_digest, status, body, created_at) SELECT 'default',"
    f" 'k' || g, 'd', 201, '{{}}', now() FROM generate_series(1, {MANY}) g",
    f"INSERT INTO webhooks (id, workspace, url, description, events, enabled, secret, created_at) SELECT 'whk_' || {_ID},"
    f" 'default', 'https://hooks.example/', '', '[]', true, 'x', {_OLD} FROM generate_series(1, {HOOKS}) g",
    f"INSERT INTO webhook_deliveries (id, workspace, webhook_id, type, body, state, due_at, since, tries, answer,"
    f" created_at, lease_token, attempts) SELECT 'dlv_' || {_ID}, 'default', 'whk_' || lpad(to_hex(mod(g, {HOOKS}) + 1), 32,"
    f" '0'), 'job.failed', '{{}}', CASE WHEN mod(g, 100) = 0 THEN 'failed' ELSE 'delivered' END, {_OLD}, now() - g * interval"
    f" '20 seconds', 1, '', {_OLD}, 1, 0 FROM generate_series(1, {MANY}) g",
)


def fill(zoo: Zoo) -> None:
    """Insert rows as after a long time of use: nearly all jobs have ended."""
    with zoo.database.engine.execution_options(pnc_write=True).begin() as connection:
        for statement in ("SET LOCAL statement_timeout = 0", "SET LOCAL session_replication_role = replica", *_FILLED):
            connection.exec_driver_sql(statement)
    with zoo.database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql("VACUUM ANALYZE")
        connection.exec_driver_sql("SET statement_timeout = '60s'")


Sent = list[tuple[str, Any]]


@contextmanager
def listening(zoo: Zoo) -> Iterator[Sent]:
    """Record the statements of a block, with their parameters."""
    sent: Sent = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            sent.append((statement, parameters[0] if many else parameters))

    event.listen(zoo.database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(zoo.database.engine, "before_cursor_execute", note)


def read_whole(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """Large tables that a statement's plan reads as a whole."""
    (plan,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
    return sorted(set(_whole(plan["Plan"])))


def _whole(node: dict[str, Any]) -> Iterator[str]:
    if node["Node Type"] in ("Seq Scan", "Parallel Seq Scan") and node["Relation Name"] in LARGE:
        yield node["Relation Name"]
    for inner in node.get("Plans", []):
        yield from _whole(inner)


def count(zoo: Zoo, table: str) -> int:
    """Number of rows of a table."""
    with zoo.database.engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)
