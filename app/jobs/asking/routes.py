"""HTTP API of the search for a source: classes of all models, and recommended sources."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.documented import documented
from app.api.requests import OpenZoo, ReadSession
from app.api.scopes import ScopedRoute, needs
from app.jobs.asking import proposing
from app.jobs.asking.recommending import recommended
from app.process.threads import LONG
from pnc_client.schemas import jobs as wire

router = APIRouter(tags=["cloning jobs"], route_class=ScopedRoute)


@router.get("/v1/classes", response_model=wire.ClassSearch, responses=documented(404))
@needs("read")
def search_classes(
    session: ReadSession,
    search: Annotated[str, Query(max_length=200, description="Words that a name or another name must hold.")] = "",
    target: Annotated[
        str | None, Query(max_length=200, description="Leave out the classes of this version and its model.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most classes in the answer.")] = 20,
) -> Any:
    """Search the classes of the newest ready version of every model of the workspace."""
    found, total = proposing.learnable(session, target, (), search, limit)
    classes = [
        {"name": one.name, "versions": [{"version": v.ref, "accuracy": v.accuracy} for v in one.versions]}
        for one in found
    ]
    return {"classes": classes, "total": total}


@router.post("/v1/recommendations", response_model=wire.Recommendations)
@needs("read")
async def recommend(body: wire.RecommendationRequest, zoo: OpenZoo) -> Any:
    """Rank the workspace's models as sources of some classes for a target, by a forecast of each job.

    Nothing is cloned. The forecasts take some seconds each, and a minute at most together.
    """
    return await LONG.run(recommended, zoo, body)
