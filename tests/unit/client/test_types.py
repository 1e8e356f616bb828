"""The client's types and the service's are written twice, on purpose; they must not drift."""

import pytest

from app.api.wire import datasets, deployments, jobs, keys, models, modules, problems, purges, signatures, uploads
from app.api.wire.shapes import Answer
from app.client import keys as access
from app.client import purges as purged
from app.client import signatures as signed
from app.client import types

PAIRS = [
    (types.Fault, problems.Fault),
    (types.Upload, uploads.Upload),
    (types.Model, models.Model),
    (types.Version, models.Version),
    (types.Dataset, datasets.Dataset),
    (types.Job, jobs.Job),
    (types.Estimate, jobs.Estimate),
    (types.Verdict, jobs.Verdict),
    (types.Event, jobs.Event),
    (types.Trial, jobs.Trial),
    (types.Bundle, modules.Bundle),
    (types.Module, modules.Module),
    (types.Desired, deployments.Desired),
    (types.Observed, deployments.Observed),
    (types.Deployment, deployments.Deployment),
    (types.ClassScore, deployments.ClassScore),
    (types.ServedModule, deployments.ServedModule),
    (access.Key, keys.Key),
    (access.NewKey, keys.NewKey),
    (access.Workspace, keys.Workspace),
    (access.AuditEntry, keys.AuditEntry),
    (signed.TrustedKey, signatures.TrustedKey),
    (signed.Signature, signatures.Signature),
    (purged.Purge, purges.Purge),
    (purged.PurgedObject, purges.PurgedObject),
    (types.Prediction, deployments.Prediction),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__name__)
def test_every_field_of_the_client_is_one_of_the_service(ours: type[types.Answer], theirs: type[Answer]) -> None:
    missing = set(ours.model_fields) - set(theirs.model_fields)
    assert missing == set()
    optional = {n for n, f in theirs.model_fields.items() if type(None) in getattr(f.annotation, "__args__", ())}
    required = {n for n, f in ours.model_fields.items() if type(None) not in getattr(f.annotation, "__args__", ())}
    assert required & optional == set()


def test_a_newer_service_is_understood() -> None:
    fault = types.Fault.model_validate({"pointer": "/a", "code": "b", "detail": "c", "severity": "new"})
    assert fault.code == "b"
