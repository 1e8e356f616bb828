"""Runs schemathesis on every operation of the OpenAPI document, in all phases and with nearly all checks."""

from collections import Counter
from dataclasses import dataclass, field

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from tests.fuzz.service import Fuzzed

OURS = {"not_a_server_error": "server_errors", "ignored_auth": "unauthenticated"}
"""Checks with separate counters; failures of all other checks count as schema violations."""
# Checks that assume a complete schema. Ours cannot express taken names, unknown ids and versions that are not ready:
# such requests fit the schema and are refused with 422 or 409. Some accepted bodies do not fit the schema.
BESIDE = ("positive_data_acceptance", "negative_data_rejection", "missing_required_header")
# DELETE archives these resources: GET still finds them by name until a purge.
ARCHIVED = "^/v1/(models|datasets|modules)/"


@dataclass
class Found:
    """Result of a run."""

    cases: int = 0
    server_errors: int = 0
    schema_violations: int = 0
    unauthenticated: int = 0
    examples: list[str] = field(default_factory=list)
    """The first failures, as text."""
    phases: Counter[str] = field(default_factory=Counter)


def fuzz_requests(service: Fuzzed, *, examples: int, seed: int, most_cases: int | None = None) -> Found:
    """Send the requests and count failed checks.

    Args:
        service: The service under test.
        examples: Number of examples per operation and phase.
        seed: Seed of the requests.
        most_cases: Stop after this number of requests; None: no limit.
    """
    schema = schemathesis.openapi.from_url(
        f"{service.url}/openapi.json", config=_config(service.secret, examples, seed)
    )
    found = Found()
    for event in from_schema(schema).execute():
        if not isinstance(event, events.ScenarioFinished):
            if isinstance(event, events.NonFatalError | events.FatalError):
                found.examples.append(f"harness: {getattr(event, 'info', getattr(event, 'exception', event))}")
            continue
        found.cases += len(event.recorder.interactions)
        found.phases[str(event.phase.value)] += len(event.recorder.interactions)
        _judge(found, event)
        service.restore_key()
        if most_cases is not None and found.cases >= most_cases:
            break
    return found


def _config(secret: str, examples: int, seed: int) -> SchemathesisConfig:
    config = SchemathesisConfig.from_dict(
        {
            "seed": seed,
            "continue-on-failure": True,
            "request-timeout": 10,
            "headers": {"Authorization": f"Bearer {secret}"},
            "generation": {"max-examples": examples, "database": "none"},
            "checks": {name: {"enabled": False} for name in BESIDE},
            "operations": [{"include-path-regex": ARCHIVED, "checks": {"use_after_free": {"enabled": False}}}],
            "phases": {"stateful": {"enabled": True}},
            "warnings": False,
        }
    )
    config.cache.enabled = False
    return config


def _judge(found: Found, event: events.ScenarioFinished) -> None:
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            kind = OURS.get(check.name, "schema_violations")
            setattr(found, kind, getattr(found, kind) + 1)
            if len(found.examples) < 20:
                case = event.recorder.cases[case_id].value
                found.examples.append(
                    f"{check.name}: {case.method} {case.formatted_path}: {check.failure_info.failure.title} "
                    f"{check.failure_info.failure.message[:200]}"
                )
