"""A canary on the real service: started, answered by, promoted, and detached without a trace."""

import time
from collections import Counter

import pytest

from app.demo import CLONED, LOW, Material, png
from pnc_client import ApiError, Client
from pnc_client.schemas.canaries import CanaryCounts


def counted(client: Client, comparisons: int) -> CanaryCounts:
    """The counts of the canary once so many requests of one image have been compared."""
    deadline = time.monotonic() + 30
    while True:
        counts = client.deployments.canary("canary").counts
        done = counts.agreed + counts.differed + counts.dropped + counts.failed
        if done >= comparisons or time.monotonic() > deadline:
            assert (done, counts.failed) == (comparisons, 0)
            return counts
        time.sleep(0.2)


def test_a_canary_answers_its_share_and_is_promoted(client: Client, material: Material, module: str) -> None:
    images = [png(image) for image in material.test.images[:40]]
    client.deployments.create("canary", "digits-low")
    before = [client.deployments.predict("canary", image) for image in images]
    assert {answer.module_set for answer in before} == {"main"}

    started = client.deployments.put_canary("canary", [module], share=0.5)
    assert started.canary is not None
    assert (started.canary.share, started.canary.mode, started.desired.modules) == (0.5, "canary", [])
    answers = [client.deployments.predict("canary", image) for image in images]
    sets = Counter((a.module_set, *(m.id for m in a.modules), len(a.classes)) for a in answers)
    assert set(sets) == {("main", len(LOW)), ("canary", module, len({*LOW, *CLONED}))}
    assert {a.generation for a in answers} == {started.generation}
    main = [client.deployments.predict("canary", image, module_set="main") for image in images]
    assert [a.classes for a in main] == [a.classes for a in before]  # bit for bit
    with pytest.raises(ApiError) as hidden:
        client.deployments.predict("canary", images[0], modules=[module])
    assert hidden.value.status == 404

    hits = sets["canary", module, len({*LOW, *CLONED})]
    counts = counted(client, hits)
    assert (counts.main_requests, counts.canary_requests) == (len(images) - hits, hits)

    full = client.deployments.put_canary("canary", [module], share=1)
    assert full.canary is not None
    assert full.canary.id == started.canary.id
    drawn = [client.deployments.predict("canary", image) for image in images]
    promoted = client.deployments.promote_canary("canary")
    assert (promoted.canary, promoted.desired.modules) == (None, [module])
    after = [client.deployments.predict("canary", image) for image in images]
    assert {a.module_set for a in after} == {"main"}
    for one, other in zip(after, drawn, strict=True):
        logits = {c.name: c.logit for c in other.classes}
        assert {c.name: c.logit for c in one.classes} == pytest.approx(logits, rel=1e-4, abs=1e-4)
    client.deployments.put_canary("canary", [], share=1, mode="shadow")
    shadowed = [client.deployments.predict("canary", image) for image in images]
    assert {(a.module_set, *(m.id for m in a.modules)) for a in shadowed} == {("main", module)}
    assert counted(client, len(images)).canary_requests == 0
    client.deployments.end_canary("canary")
    client.deployments.detach("canary", module)
    assert [client.deployments.predict("canary", image).classes for image in images] == [a.classes for a in before]
    client.deployments.delete("canary")
