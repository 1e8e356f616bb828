"""Pages show ten classes at a time, and each alias beside its version."""

import httpx
import pytest
from fastapi import FastAPI
from nicegui import core

from app.jobs.asking.learning import Asked, offered
from app.models import list_page, page
from app.models import service as models
from app.models.classes import names_of
from app.web import catalogue
from app.web.catalogue import ListQuery
from app.web.class_list import SHOWN, drawn, matches
from app.web.html import table
from app.zoo import Zoo
from pnc_core.class_names import ClassNames
from tests.unit import seeds
from tests.unit.inprocess import InProcess

MOST_BYTES = 80_000


@pytest.fixture
def many(zoo: Zoo) -> Zoo:
    """A zoo with versions of few, of a thousand and of twenty thousand classes."""
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", seeds.LOW, value=1)
        for value, count in ((2, 1000), (3, 20_000)):
            seeds.version(session, zoo, f"net{count}", tuple(f"kind of fish {n}" for n in range(count)), value=value)
        seeds.dataset(session, zoo)
    return zoo


@pytest.mark.parametrize("path", ["/models/net{}", "/new?source=net{}&target=low", "/new?source=low&target=net{}"])
@pytest.mark.parametrize("count", [1000, 20_000])
def test_a_page_does_not_grow_with_the_number_of_classes(
    app: FastAPI, many: Zoo, monkeypatch: pytest.MonkeyPatch, path: str, count: int
) -> None:
    with InProcess(app) as transport, httpx.Client(base_url="http://localhost:8000", transport=transport) as http:
        monkeypatch.setattr(core, "loop", transport.loop())
        http.headers["Accept-Encoding"] = "identity"
        answer = http.get(path.format(count))
    assert answer.status_code == 200
    assert "fish 21" not in answer.text
    assert len(answer.content) < MOST_BYTES


def test_a_search_shows_ten_classes_and_counts_all(many: Zoo) -> None:
    with many.database.read() as session:
        names = names_of(models.resolve(session, "net20000"))
    assert matches(names, "").note == "10 of 20,000 classes"
    found = matches(names, "FISH 1999")
    assert (len(found.shown), found.total, found.note) == (SHOWN, 12, "10 of 12 classes that hold 'FISH 1999'")
    assert matches(names, "#7").note == "1 class that holds '#7'"
    assert "#1999" in drawn(found)


def test_names_of_strangers_are_escaped() -> None:
    shown = drawn(matches(ClassNames(("<script>", "a")), "<script>"))
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_the_form_says_which_classes_the_target_has_and_counts_images(many: Zoo) -> None:
    with many.database.read() as session:
        data = catalogue.datasets(session, ListQuery()).rows[0]
        offer = offered(session, Asked("low", "low", data.id), "")
        assert offer.taken == set(seeds.LOW)
        assert offer.images == dict.fromkeys(seeds.LOW, 10)
        everything = offered(session, Asked(), "")
        assert (everything.classes, len(everything.found.shown)) == (20_005, SHOWN)
        assert offered(session, Asked(target="low"), "fish 19999").models == {"kind of fish 19999": ["net20000"]}
        both = offered(session, Asked(target="low"), "fish 7", ("kind of fish 7",))
        assert both.models["kind of fish 7"] == ["net20000", "net1000"]
        assert offered(session, Asked("gone"), "").classes == 0


def _two_versions(zoo: Zoo) -> None:
    with zoo.database.write() as session:
        seeds.version(session, zoo, "low", value=1)
        again = seeds.upload(session, zoo, seeds.tensors(2))
        models.add_version(session, "low", upload_id=again.id, spec=seeds.network())
        models.set_alias(session, "low", "production", 1)
        models.set_alias(session, "low", "candidate", 2)


def test_an_alias_stands_beside_its_version(zoo: Zoo) -> None:
    _two_versions(zoo)
    chip = '<span class="chips"><span class="chip">{}</span></span>'
    with zoo.database.read() as session:
        (line,) = catalogue.models(session, ListQuery()).rows
        row = str(table(list_page.KIND.columns, [list_page.KIND.row(line)], "models"))
        view = page.load_view(session, zoo, "low")
    in_list = row.replace(" ", "")
    assert f"v2</span>{chip.format('candidate')}".replace(" ", "") in in_list
    assert f"v1</span>{chip.format('production')}".replace(" ", "") in in_list
    facts, versions = str(view.side).split("Versions", 1)
    assert ("candidate" in facts, "production" in facts) == (True, False)
    newest, oldest = versions.split("<tbody>")[1].split("</tr>")[:2]
    assert ("candidate" in newest, "production" in newest) == (True, False)
    assert ("candidate" in oldest, "production" in oldest) == (False, True)
