"""The service and its client share one set of JSON types (`pnc_client.schemas`)."""

from typing import get_args

from pnc_client.schemas import signatures
from pnc_client.schemas.models import Version
from pnc_client.schemas.problems import Fault
from pnc_client.schemas.uploads import Upload, UploadStatus
from pnc_core.module import signing


def test_a_field_that_a_newer_service_adds_is_ignored() -> None:
    fault = Fault.model_validate({"pointer": "/a", "code": "b", "detail": "c", "severity": "new"})
    assert fault.code == "b"


def test_a_value_that_a_newer_service_adds_is_read_and_the_known_ones_are_documented() -> None:
    upload = {"id": "up_1", "status": "scanning", "bytes": 1, "digest": "d", "received": 0, "content_url": None}
    dates = {"created_at": "2026-01-01T00:00:00Z", "completed_at": None}
    assert Upload.model_validate({**upload, **dates, "parts": None}).status == "scanning"
    assert Upload.model_json_schema()["properties"]["status"]["enum"] == list(get_args(UploadStatus))


def test_every_field_of_an_answer_is_described() -> None:
    assert all(field.description for field in Version.model_fields.values())


def test_the_longest_signature_is_as_long_as_the_library_reads() -> None:
    assert signatures.MAX_SIGNATURE == signing.MAX_BYTES
