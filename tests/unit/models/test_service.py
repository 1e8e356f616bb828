import pytest
from sqlalchemy.orm import Session

from app.db.pages import Window
from app.errors import AlreadyExists, Invalid, NotFound
from app.models import service as models
from app.models import validation
from app.models.service import Accuracy
from app.zoo import Zoo
from tests.unit import seeds


def _add(session: Session, zoo: Zoo, name: str, content: bytes) -> int:
    up = seeds.upload(session, zoo, content)
    return models.add_version(session, name, upload_id=up.id, spec=seeds.network()).number


def test_versions_count_from_one_in_each_model(zoo: Zoo, session: Session) -> None:
    for name in ("a", "b"):
        models.create(session, name=name)
        assert [_add(session, zoo, name, seeds.tensors(i)) for i in range(3)] == [1, 2, 3]


def test_a_name_is_taken_once(session: Session) -> None:
    models.create(session, name="a")
    models.change(session, "a", archived=True)
    with pytest.raises(AlreadyExists):
        models.create(session, name="a")


@pytest.mark.parametrize("name", ["", "A", "-a", "a/b", "../a", "a" * 64, "a b", "ä", "a\n"])
def test_names_that_are_not_names_are_refused(session: Session, name: str) -> None:
    with pytest.raises(Invalid):
        models.create(session, name=name)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "8 bytes"), (b"x" * 100, "at most"), (seeds.tensors()[:-1], "4 bytes"), (b"\x02" + bytes(7) + b"{}x", "0")],
)
def test_damaged_weights_are_refused_at_once(zoo: Zoo, session: Session, content: bytes, word: str) -> None:
    models.create(session, name="a")
    stored = zoo.store.put([content])
    with pytest.raises(Invalid, match=word) as caught:
        models.check_header(zoo.store, stored.key)
    assert (caught.value.problems[0].pointer, caught.value.problems[0].code) == ("/upload", "invalid_safetensors")


def test_an_open_upload_makes_no_version(zoo: Zoo, session: Session) -> None:
    from app.store import uploads

    models.create(session, name="a")
    up = uploads.declare(session, uploads.draft(bytes=4, sha256="0" * 64, limit=10))
    for upload_id in (up.id, "up_none"):
        with pytest.raises(Invalid, match="complete upload"):
            models.add_version(session, "a", upload_id=upload_id, spec=seeds.network())


def test_references_find_versions(zoo: Zoo, session: Session) -> None:
    models.create(session, name="a")
    for i in range(3):
        _add(session, zoo, "a", seeds.tensors(i))
    models.set_alias(session, "a", "production", 1)
    for ref, number in (("a", 3), ("a@2", 2), ("a@production", 1), (models.resolve(session, "a@2").id, 2)):
        assert models.resolve(session, ref).number == number
    models.set_alias(session, "a", "production", 2)
    assert models.resolve(session, "a@production").number == 2
    models.delete_alias(session, "a", "production")
    for ref in ("a@production", "a@4", "a@0", "a@99999999999999999999", "b", "b@1", "ver_none", "", "@", "a@²"):
        with pytest.raises(NotFound):
            models.resolve(session, ref)


def test_a_bare_name_passes_over_rejected_versions(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "a")
    _add(session, zoo, "a", seeds.tensors(5))
    lease = validation.claim_validation(session, "w")
    assert lease is not None
    validation.reject_version(session, lease, {"code": "x", "detail": "y"})
    assert models.resolve(session, "a").number == 1
    assert models.resolve(session, "a@2").status == "rejected"


@pytest.mark.parametrize("alias", ["3", "A", "", "a/b"])
def test_an_alias_is_never_a_number(zoo: Zoo, session: Session, alias: str) -> None:
    seeds.version(session, zoo, "a")
    with pytest.raises(Invalid):
        models.set_alias(session, "a", alias, 1)


def test_the_specification_comes_back_as_it_went_in(zoo: Zoo, session: Session) -> None:
    version = seeds.version(session, zoo, "a")
    assert models.spec_of(version) == seeds.network()
    session.expire(version)
    assert models.spec_of(version) == seeds.network()


def test_pages_hold_every_model_once_though_new_ones_come(session: Session) -> None:
    names = [f"m{i:02}" for i in range(7)]
    for name in names:
        models.create(session, name=name)
    seen, after = [], None
    while True:
        page = models.list_models(session, Window(3, after))
        seen += [row.name for row in page.data]
        models.create(session, name=f"new{len(seen)}")
        after = page.next_cursor
        if not page.has_more:
            break
    assert seen == names[::-1]


@pytest.mark.parametrize("window", [Window(3, "?"), Window(0), Window(101), Window(3, "AAAA")])
def test_what_is_no_page_is_refused(session: Session, window: Window) -> None:
    seeds_for = models.create(session, name="a").name
    if window.after == "AAAA":  # three zero bytes: text, but no number of a version
        with pytest.raises(Invalid):
            models.list_versions(session, seeds_for, window)
    else:
        with pytest.raises(Invalid):
            models.list_models(session, window)


def test_a_bare_name_means_the_newest_ready_version(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "a")
    for i in (5, 6):
        _add(session, zoo, "a", seeds.tensors(i))
    assert models.resolve(session, "a").number == 1
    seeds.accept(session, models.resolve(session, "a@2"), "2" * 64)
    assert models.resolve(session, "a").number == 2


def test_without_a_ready_version_a_bare_name_means_one_that_may_become_it(zoo: Zoo, session: Session) -> None:
    seeds.version(session, zoo, "a", status="rejected")
    assert models.resolve(session, "a").number == 1
    for i in (5, 6):
        _add(session, zoo, "a", seeds.tensors(i))
    lease = validation.claim_validation(session, "w")
    assert lease is not None
    assert lease.id == models.resolve(session, "a@2").id
    validation.reject_version(session, lease, {"code": "x", "detail": "y"})
    assert models.resolve(session, "a").number == 3


def test_the_accuracy_is_that_on_the_most_images(zoo: Zoo, session: Session) -> None:
    row, other = seeds.version(session, zoo, "a", value=1), seeds.version(session, zoo, "b", value=2)
    for share, images in ((0.5, 100), (0.9, 100), (0.25, 99), (0.75, 101)):
        models.note_accuracy(session, row.id, Accuracy(share, images, f"ds_{images}"))
    session.expire_all()
    assert (row.accuracy, row.accuracy_images, row.accuracy_dataset) == (0.75, 101, "ds_101")
    assert other.accuracy is None
