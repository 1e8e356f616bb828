from typing import Any

import pytest
from fastapi import FastAPI
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

METHODS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    return app.openapi()


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


@pytest.mark.always
def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_every_operation_is_described_and_named_once(document: dict[str, Any]) -> None:
    operations = _operations(document)
    assert len(operations) > 30
    assert len({o["operationId"] for _, _, o in operations}) == len(operations)
    for path, method, operation in operations:
        assert operation["tags"], (method, path)
        assert operation["description"].strip(), (method, path)
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["schema"].get("description"), (path, parameter["name"])


def test_every_operation_documents_its_problems(document: dict[str, Any]) -> None:
    for path, method, operation in _operations(document):
        errors = {s: r for s, r in operation["responses"].items() if s.startswith(("4", "5"))}
        assert {"403", "422"} <= set(errors), (method, path)
        for status, response in errors.items():
            assert list(response["content"]) == ["application/problem+json"], (method, path, status)


def test_every_body_has_an_example_and_refuses_unknown_fields(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for path, method, operation in _operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        assert schema["additionalProperties"] is False, (method, path)
        small = len(schema["properties"]) <= 2
        assert small or "examples" in schema or "examples" in content, (method, path)


def test_every_json_answer_has_an_example_that_is_one(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for path, method, operation in _operations(document):
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/json")
            if content is None or not status.startswith("2"):
                continue
            name = content["schema"]["$ref"].rpartition("/")[2]
            assert schemas[name].get("examples"), (method, path, name)
            resolved = {**schemas[name], "components": document["components"]}
            for example in schemas[name]["examples"]:
                OAS31Validator(resolved).validate(example)
