"""Sources of a workspace for classes that a target should learn, ranked by a forecast of each job.

No module is made. Each forecast cross-fits a head on the features of both whole networks (`pnc_core.method.advice`), on
the same sample of images, so that the forecasts can be compared with each other and with a linear probe on the target.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.errors import Invalid, NotFound
from app.jobs import service as jobs
from app.jobs.asking import proposing
from app.jobs.asking.advising import fields_of, told_of
from app.jobs.service import JobRequest
from app.models import classes as class_names
from app.models.tables import VersionRow
from app.zoo import Zoo
from pnc_client.schemas.jobs import RecommendationRequest
from pnc_core.config import CloneConfig


def recommended(zoo: Zoo, asked: RecommendationRequest) -> dict[str, Any]:
    """The fields of a `pnc_client.schemas.jobs.Recommendations`.

    Args:
        zoo: The zoo, restricted to the caller's workspace.
        asked: Target, classes and dataset.

    Raises:
        Invalid: there is no such target, no other model has all classes, or the job would be refused with every source.
    """
    with zoo.database.read() as session:
        having = _having(session, asked)
        chosen, others = having[: asked.most], len(having) - len(having[: asked.most])
        requests = [_request(asked, row, names) for row, names in chosen]
        found = [jobs.validate(session, request) for request in requests]
    possible = [request for request, validation in zip(requests, found, strict=True) if not validation.problems]
    if not possible:
        raise Invalid(found[0].problems)
    told = dict(zip([request.source for request in possible], told_of(zoo, possible), strict=True))
    rows = [
        _row(request, told.get(request.source), "; ".join(problem.detail for problem in validation.problems))
        for request, validation in zip(requests, found, strict=True)
    ]
    rows.sort(key=lambda row: -row["advice"]["accuracy"] if row["advice"] else 1.0)
    return {**_judged(rows), "sources": rows, "others": others}


def _having(session: Session, asked: RecommendationRequest) -> list[tuple[VersionRow, list[str]]]:
    """Versions that have all wanted classes, with their own names of these, the most accurate first.

    Raises:
        Invalid: there is no such target, or no other model has all classes.
    """
    try:
        rows = proposing.sources(session, asked.target, ())
    except NotFound as error:
        raise Invalid.at("/target", error.code, str(error)) from None
    found = []
    for row in rows:
        names = [class_names.meant(row, [text]) for text in asked.classes]
        if all(names):
            found.append((row, [name for one in names for name in one]))
    if not found:
        detail = (
            f"expected a model that has all of {asked.classes}, got none beside the target; search single classes with "
            "GET /v1/classes, or add a model"
        )
        raise Invalid.at("/classes", "no_source", detail)
    return found


def _request(asked: RecommendationRequest, row: VersionRow, names: Sequence[str]) -> JobRequest:
    config = CloneConfig(classes=tuple(names))
    return JobRequest(target=asked.target, source=row.ref, dataset=asked.dataset, config=config)


def _row(request: JobRequest, told: dict[str, Any] | None, problem: str) -> dict[str, Any]:
    """The fields of a `Recommendation`; `problem` is the reason for which nothing is told."""
    row: dict[str, Any] = {"source": request.source, "classes": list(request.config.classes)}
    if told is None or "error" in told:
        reason = problem if told is None else told["error"]["detail"]
        return {**row, "advice": None, "probe": None, "no_advice": reason}
    figures = told["verdict"]["figures"]
    return {**row, "advice": fields_of(told), "probe": figures["probe"]["average"], "no_advice": None}


def _judged(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best source, and the result in one sentence."""
    first = rows[0]
    advice = first["advice"]
    if advice is None:
        return {"best": None, "text": f"no forecast could be made: {first['no_advice']}"}
    expected = f"{100 * advice['accuracy']:.1f} % (90 %: {100 * advice['low']:.1f} to {100 * advice['high']:.1f})"
    probe = f"a linear probe on the target alone, {100 * first['probe']:.1f} %"
    if advice["accuracy"] <= first["probe"]:
        return {"best": None, "text": f"no source is expected to be better than {probe}; the best has {expected}"}
    return {"best": first["source"], "text": f"{first['source']}: {expected} is expected, beside {probe}"}
