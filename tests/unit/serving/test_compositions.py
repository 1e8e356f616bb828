"""A deployment answers with the composition of exactly its modules."""

import httpx
import numpy as np
import pytest
import torch

from app.compositions import service as compositions
from app.deployments import service as deployments
from pnc_core.analysis.evaluation import predict
from pnc_core.identity import fingerprint
from pnc_core.module.composed import attach
from pnc_core.module.composition import Composition
from tests.unit.serving import composing, world
from tests.unit.serving.world import NAME, World


@pytest.fixture(scope="module")
def numbers(here: World) -> dict[str, Composition]:
    """Compositions of the first two modules, by head."""
    return {head: composing.made(here, (0, 1), head) for head in ("affine", "joint", "ridge")}  # type: ignore[arg-type]


def _sync(address: str, generation: int) -> None:
    httpx.post(f"http://{address}/internal/sync/{NAME}?generation={generation}", timeout=30).raise_for_status()


def _answer(address: str, images: torch.Tensor) -> tuple[str, np.ndarray]:
    """Id of the composition, and logits (N, C)."""
    body = {
        "inputs": [
            {
                "name": "images", "shape": [*images.shape], "datatype": "UINT8", "data": images.flatten().tolist(),
            }
        ]
    }  # fmt: skip
    answer = httpx.post(f"http://{address}/v2/models/{NAME}/infer", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    output = next(one for one in document["outputs"] if one["name"] == "logits")
    return document["parameters"]["composition"], np.array(output["data"]).reshape(output["shape"])


def test_answers_are_those_of_the_library(here: World, url: str, numbers: dict[str, Composition]) -> None:
    images = here.images(5)
    for head in ("affine", "joint", "ridge"):
        row = composing.ready(here, (0, 1), numbers[head])
        for places in ((0, 1), (1, 0)):
            _sync(url, here.want([here.modules[place] for place in places]))
            with here.zoo.database.read() as session:
                current = deployments.revision(session, deployments.get(session, NAME))
                assert current.composition_id == row
            bundles = [here.bundles[place] for place in places]
            expected = predict(attach(here.target[0], bundles, composition=numbers[head]), here.target[1], images)
            name, logits = _answer(url, images)
            assert name == row
            np.testing.assert_allclose(logits, expected.numpy(), atol=1e-3)


def test_another_set_has_plain_scales_and_the_target_stays(
    here: World, url: str, numbers: dict[str, Composition]
) -> None:
    images, before = here.images(4), fingerprint(here.target[0])
    _sync(url, here.want([]))
    alone = _answer(url, images)
    composing.ready(here, (0, 1), numbers["affine"])
    _sync(url, here.want([here.modules[0], here.modules[1]]))
    assert _answer(url, images)[0]
    _sync(url, here.want([*here.modules]))
    name, logits = _answer(url, images)
    assert name == ""
    plain = predict(attach(here.target[0], here.bundles), here.target[1], images)
    np.testing.assert_allclose(logits, plain.numpy(), atol=1e-3)
    _sync(url, here.want([]))
    again = _answer(url, images)
    assert again[0] == ""
    assert np.array_equal(alone[1], again[1])
    assert fingerprint(here.target[0]) == before


def test_detaching_takes_the_composition_of_the_rest(here: World, numbers: dict[str, Composition]) -> None:
    pair = composing.ready(here, (0, 1), numbers["affine"])
    alone = composing.ready(here, (0,), composing.made(here, (0,)))
    here.want([here.modules[0], here.modules[1]])
    with here.zoo.database.write() as session:
        assert deployments.revision(session, deployments.get(session, NAME)).composition_id == pair
        changed = deployments.detach(session, NAME, here.modules[1]).deployment
        assert deployments.revision(session, changed).composition_id == alone


def test_a_newer_composition_is_taken_when_the_modules_are_attached_again(
    here: World, numbers: dict[str, Composition]
) -> None:
    ids = [here.modules[0], here.modules[1]]
    old = composing.ready(here, (0, 1), numbers["affine"])
    here.want(ids)
    with here.zoo.database.write() as session:
        assert not deployments.set_modules(session, NAME, ids).changed
        assert not deployments.attach(session, NAME, ids[0]).changed
    new = composing.ready(here, (0, 1), numbers["joint"])
    with here.zoo.database.write() as session:
        with pytest.raises(Exception, match="expected a composition that no deployment has"):
            deployments.check_unused(session, compositions.get(session, old))
        changed = deployments.attach(session, NAME, ids[0])
        assert changed.changed
        assert deployments.revision(session, changed.deployment).composition_id == new
        deployments.check_unused(session, compositions.get(session, old))


def test_a_lost_file_leaves_the_earlier_generation_served(fresh: World) -> None:
    composition = composing.made(fresh, (0, 1))
    with world.serving(fresh.zoo.settings) as (address, _):
        row = composing.ready(fresh, (0, 1), composition)
        with fresh.zoo.database.read() as session:
            key = compositions.stored(session, row).key
        fresh.zoo.store.delete(key)
        generation = fresh.want([fresh.modules[0], fresh.modules[1]])
        answer = httpx.post(f"http://{address}/internal/sync/{NAME}?generation={generation}", timeout=30)
        assert answer.status_code >= 400 or answer.json()
        name, logits = _answer(address, fresh.images(2))
        assert (name, logits.shape) == ("", (2, 5))
