"""Models, versions and aliases."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from app.api.documented import documented
from app.api.requests import ArchivesOf, DoOnce, ListQuery, OpenZoo, ReadSession, Reply
from app.api.scopes import ScopedRoute, needs, note
from app.datasets import service as datasets
from app.models import architectures, checks, classes
from app.models import service as models
from app.process.threads import LONG, on
from app.store import downloads, uploads
from app.store.objects import Stored
from pnc_client.schemas import models as wire
from pnc_client.schemas.checks import CheckRequest
from pnc_client.schemas.shapes import Archiving, Page

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=ScopedRoute)
Name = Annotated[str, Path(description="Name or id of a model.", examples=["digits-low"])]
Number = Annotated[int, Path(description="Number of a version.", examples=[1])]

AliasName = Annotated[str, Path(description="Name of an alias.", examples=["production"])]


class ClassQuery(ListQuery):
    """Query of the list of classes."""

    search: str = Field("", max_length=200)
    """Words that the name or another name of a class must hold, in upper or lower case; `#12`: the class 12."""


@router.post("", response_model=wire.Model, status_code=201, responses=documented(409))
@needs("write")
def create_model(body: wire.ModelCreate, once: DoOnce) -> Response:
    """Register a model; add versions to it next."""
    return once(
        lambda session: Reply(
            wire.Model.of(models.create(session, name=body.name, description=body.description)),
            location=f"/v1/models/{body.name}",
        )
    )


@router.post("/validate", response_model=wire.SpecVerdict)
@needs("read")
@on(LONG)
def validate_spec(body: wire.SpecCheck) -> Any:
    """Check a spec before its weights are uploaded: a misspelt architecture is answered with similar names."""
    problems = architectures.problems(body.spec)
    return {"valid": not problems, "problems": problems}


@router.get("", response_model=Page[wire.Model])
@needs("read")
def list_models(session: ReadSession, query: ArchivesOf) -> Any:
    """Models, newest first."""
    found = models.list_models(session, query.window(), archived=query.archived)
    return {**vars(found), "data": [wire.Model.of(row) for row in found.data]}


@router.get("/{model}", response_model=wire.Model, responses=documented(404))
@needs("read")
def get_model(model: Name, session: ReadSession) -> Any:
    """One model."""
    return wire.Model.of(models.get(session, model))


@router.patch("/{model}", response_model=wire.Model, responses=documented(404))
@needs("write")
def change_model(model: Name, body: wire.ModelChange, zoo: OpenZoo) -> Any:
    """Change a model's description, archive or restore it."""
    with zoo.database.write() as session:
        return wire.Model.of(models.change(session, model, **vars(body)))


@router.delete("/{model}", status_code=204, responses=documented(404))
@needs("write")
def archive_model(model: Name, zoo: OpenZoo) -> None:
    """Archive a model: it leaves the lists and takes no more jobs; deployments go on."""
    with zoo.database.write() as session:
        models.change(session, model, archived=True)


@router.post("/{model}/versions", response_model=wire.Version, status_code=201, responses=documented(404, 409))
@needs("write")
def create_version(model: Name, body: wire.VersionCreate, once: DoOnce) -> Response:
    """Add a version from a complete upload; it is `validating` until a worker has loaded the weights."""
    with once.zoo.database.read() as session:
        models.get(session, model)
        _, key = uploads.completed(session, body.upload)
    models.check_header(once.zoo.store, key)

    def work(session: Any) -> Reply:
        origin = body.origin.model_dump() if body.origin else None
        row = models.add_version(
            session, model, upload_id=body.upload, spec=body.spec, licence=body.licence, origin=origin
        )
        version = wire.Version.model_validate(row)
        return Reply(version, location=f"/v1/models/{row.model.name}/versions/{row.number}")

    return once(work)


@router.get("/{model}/versions", response_model=Page[wire.Version], responses=documented(404))
@needs("read")
def list_versions(model: Name, session: ReadSession, query: ArchivesOf) -> Any:
    """A model's versions, newest first."""
    return models.list_versions(session, model, query.window(), archived=query.archived)


@router.get("/{model}/versions/{version}", response_model=wire.Version, responses=documented(404))
@needs("read")
def get_version(model: Name, version: Number, session: ReadSession) -> Any:
    """One version."""
    return models.get_version(session, model, version)


@router.post(
    "/{model}/versions/{version}/check", response_model=wire.Version, status_code=202, responses=documented(404, 409)
)
@needs("write")
def check_version(model: Name, version: Number, body: CheckRequest, once: DoOnce) -> Response:
    """Check a version on the labelled images of a dataset: its `checking` names the dataset until `check` is new."""

    def work(session: Any) -> Reply:
        row = checks.ask(session, model, version, datasets.get(session, body.dataset))
        return Reply(wire.Version.model_validate(row), status=202)

    return once(work)


@router.get("/{model}/versions/{version}/classes", response_model=Page[wire.ClassName], responses=documented(404))
@needs("read")
def list_classes(model: Name, version: Number, session: ReadSession, query: Annotated[ClassQuery, Query()]) -> Any:
    """Classes of a version in the order of its logits, or those whose names hold every word of a search."""
    return classes.list_classes(session, model, version, query.search, query.window())


@router.get(
    "/{model}/versions/{version}/weights",
    response_class=Response,
    responses={**downloads.DOCUMENTED, **documented(404, 416)},
)
@needs("read")
def download_weights(model: Name, version: Number, request: Request, zoo: OpenZoo) -> Response:
    """Download a version's weights, a safetensors file. The audit log records each download."""
    with zoo.database.read() as session:
        row = models.get_version(session, model, version)
        stored, filename = Stored(row.key, row.digest, row.bytes), f"{row.model.name}-{row.number}.safetensors"
    response = downloads.send(request, zoo.store, stored, filename)
    if request.method == "GET":
        note(request.app.state.zoo, request, "download_weights", str(response.status_code))
    return response


router.add_api_route("/{model}/versions/{version}/weights", download_weights, methods=["HEAD"], include_in_schema=False)


@router.patch("/{model}/versions/{version}", response_model=wire.Version, responses=documented(404))
@needs("write")
def change_version(model: Name, version: Number, body: Archiving, zoo: OpenZoo) -> Any:
    """Archive or restore a version."""
    with zoo.database.write() as session:
        return wire.Version.model_validate(models.put_version_away(session, model, version, body.archived))


@router.delete("/{model}/versions/{version}", status_code=204, responses=documented(404))
@needs("write")
def archive_version(model: Name, version: Number, zoo: OpenZoo) -> None:
    """Archive a version: it leaves the lists and takes no more jobs; deployments go on."""
    with zoo.database.write() as session:
        models.put_version_away(session, model, version, archived=True)


@router.put("/{model}/aliases/{alias}", response_model=wire.Alias, responses=documented(404))
@needs("write")
def set_alias(model: Name, alias: AliasName, body: wire.AliasSet, zoo: OpenZoo) -> Any:
    """Point an alias at a version."""
    with zoo.database.write() as session:
        return wire.Alias.of(models.set_alias(session, model, alias, body.version))


@router.delete("/{model}/aliases/{alias}", status_code=204, responses=documented(404))
@needs("write")
def delete_alias(model: Name, alias: AliasName, zoo: OpenZoo) -> None:
    """Remove an alias."""
    with zoo.database.write() as session:
        models.delete_alias(session, model, alias)
