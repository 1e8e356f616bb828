"""Lists find, sort and count, with the same number of queries however much there is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from sqlalchemy import insert, text, update

from app.datasets import list_page as datasets
from app.deployments import list_page as deployments
from app.deployments import page as deployment
from app.deployments import replicas
from app.deployments import service as zoo_deployments
from app.deployments.replicas import Observation
from app.deployments.tables import AttachmentRow, RevisionRow
from app.jobs import list_page as jobs
from app.jobs import page as job
from app.models import card_page as card
from app.models import list_page as models
from app.models import page as model
from app.models.tables import VersionRow
from app.modules import list_page as modules
from app.modules.tables import ModuleRow
from app.web import catalogue, listing
from app.web.catalogue import ListQuery
from app.web.html import table
from app.web.listing import Kind
from app.zoo import Zoo
from tests.unit import seeds
from tests.unit.crowds import NOW, crowd
from tests.unit.statements import counting

KINDS: list[Kind[Any]] = [models.KIND, datasets.KIND, jobs.KIND, modules.KIND, deployments.KIND]


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Zoo]:
    """A zoo with many rows."""
    zoo = seeds.new_zoo(tmp_path)
    with zoo.database.write() as session:
        crowd(session, models=300, jobs=600)
        for i in range(40):
            zoo_deployments.put(session, f"served-{i:02}", f"net-{i:06}")
    yield zoo
    zoo.close()


def drawn(zoo: Zoo, kind: Kind[Any], list_query: ListQuery) -> Markup:
    with zoo.database.read() as session:
        return table(kind.columns, [kind.row(row) for row in kind.find(session, list_query).rows], kind.things)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.things)
def test_a_page_of_many_rows_needs_no_more_queries_than_one_of_few(crowded: Zoo, kind: Kind[Any]) -> None:
    with counting(crowded) as few:
        drawn(crowded, kind, ListQuery(count=10))  # with jobs of every state
    with counting(crowded) as many:
        drawn(crowded, kind, ListQuery(count=50))
    assert len(many) == len(few) <= 25


def test_detail_pages_need_few_queries(crowded: Zoo) -> None:
    with counting(crowded) as sent, crowded.database.read() as session:
        view = job.load_view(session, "job_000000")
    assert len(sent) <= 25
    assert view.parts["curve"].count("<circle") + view.parts["curve"].count("<rect") == 99  # and a star
    with counting(crowded) as sent, crowded.database.read() as session:
        shown = model.load_view(session, crowded, "net-000003")
    assert len(sent) <= 25
    assert (shown.model.name, shown.is_settled) == ("net-000003", True)
    assert "Cloned into it" in shown.family
    assert "squash to 8 x 8, bilinear, 0..1" in shown.side


@pytest.mark.parametrize(
    ("search", "found"),
    [("", 300), ("NET-00001", 10), ("net 000299", 1), ("cnn", 300), ("nothing", 0), ("100%", 0), ("net_0", 0)],
)
def test_a_search_finds_every_word_and_counts(crowded: Zoo, search: str, found: int) -> None:
    with crowded.database.read() as session:
        assert catalogue.models(session, ListQuery(search)).total == found


def test_orders_and_pages(crowded: Zoo) -> None:
    def names(**list_query: Any) -> list[str]:
        with crowded.database.read() as session:
            return [line.model.name for line in catalogue.models(session, ListQuery(**list_query)).rows]

    assert names(count=2) == ["net-000299", "net-000298"]
    assert names(count=2, start=2) == ["net-000297", "net-000296"]
    assert names(count=2, order="name") == names(count=2, order="small") == ["net-000000", "net-000001"]
    assert names(count=1, order="large") == ["net-000299"]
    assert names(start=10_000) == []


def test_who_asks_for_a_page_behind_the_last_one_gets_the_last(crowded: Zoo) -> None:
    with crowded.database.read() as session:
        content, total, list_query = listing.part(session, models.KIND, listing.asked("", "", "", 99))
        nothing, none, first = listing.part(session, models.KIND, listing.asked("nothing", "", "", 99))
    assert (total, list_query.start) == (300, 275)
    assert "net-000024" in content
    assert (none, first.start) == (0, 0)
    assert "No models found" in nothing


def test_pages_say_how_many_rows_they_leave_out(crowded: Zoo) -> None:
    with crowded.database.write() as session:
        served = zoo_deployments.get(session, "served-00")
        wanted = zoo_deployments.revision(session, served)
        fits = wanted.version.fingerprint
        session.execute(update(ModuleRow).values(target_fingerprint=fits))
        old = [{"deployment_id": served.id, "generation": n, "version_id": wanted.version_id} for n in range(-24, 0)]
        session.execute(insert(RevisionRow), [{**row, "refused": False, "created_at": NOW} for row in old])
        session.execute(update(VersionRow).values(model_id="mdl_000000", number=text("rowid")))
    with crowded.database.read() as session:
        view = deployment.load_view(session, "served-00")
        side = model.load_view(session, crowded, "net-000000").side
    assert (len(view.modules), view.more_modules) == (50, 70)
    assert f"and 70 more: <code>pnc modules list --fingerprint {fits}</code>" in deployment._more_modules(view)
    assert (len(view.revisions), view.more_revisions) == (20, 5)
    assert "and 280 more: <code>pnc models show net-000000</code>" in side


def test_jobs_by_state(crowded: Zoo) -> None:
    with crowded.database.read() as session:
        totals = {
            state: catalogue.jobs(session, ListQuery(state=state)).total for state in ("", "failed", "live", "odd")
        }
    assert totals == {"": 600, "failed": 120, "live": 240, "odd": 0}


def test_names_are_text_on_every_page(zoo: Zoo) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    with zoo.database.write() as session:
        row = seeds.module(session, zoo)
        cloning = seeds.job_of(session, row)
        cloning.config = {**cloning.config, "classes": [hostile]}
        row.classes = [hostile]
        row.target_version.model.description = hostile
        row.target_version.spec = {**row.target_version.spec, "classes": [hostile]}
        row.manifest = {**row.manifest, "head": {"kind": hostile}, "created_by": hostile}
        module_id, job_id = row.id, row.job_id
        zoo_deployments.put(session, "digits", "low")
    from app.modules import page as module
    from app.web import comparison

    with zoo.database.read() as session:
        shown = [
            *(table(k.columns, [k.row(row) for row in k.find(session, ListQuery()).rows], k.things) for k in KINDS),
            *job.load_view(session, job_id).parts.values(),
            *(lambda page: (page.head, page.layers, page.side, page.family))(model.load_view(session, zoo, "low")),
            card.rendered(hostile),
            module._content(session, zoo, module_id),
            comparison._content(session, [job_id, job_id]),
            comparison._content(session, [module_id, hostile]),
        ]
    assert "<img" not in "".join(shown)
    assert "&lt;img src=x" in "".join(shown)


def test_a_deployment_shows_what_each_replica_says(crowded: Zoo) -> None:
    with crowded.database.write() as session:
        replicas.report(session, "rep_one", {"served-00": Observation(1)})
        replicas.report(session, "rep_two", {"served-00": Observation(1, {"detail": "out of memory"})})
        replicas.report(session, "rep_new", {})
    with counting(crowded) as sent, crowded.database.read() as session:
        shown = deployment._replicas(deployment.load_view(session, "served-00"))
    assert len(sent) <= 25
    assert [shown.count(f"</i>{state}") for state in ("served", "failed", "changing")] == [1, 1, 1]


def test_a_deployment_shows_how_its_modules_are_balanced() -> None:
    one, two = AttachmentRow(module_id="mod_1", ordinal=0), AttachmentRow(module_id="mod_2", ordinal=1)
    balanced = RevisionRow(attachments=[one, two], composition_id="cmp_1")
    assert "composition cmp_1" in deployment._balance(balanced)
    assert "out of balance" in deployment._balance(RevisionRow(attachments=[one, two], composition_id=None))
    assert deployment._balance(RevisionRow(attachments=[one], composition_id=None)) == ""
