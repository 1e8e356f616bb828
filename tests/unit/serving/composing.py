"""Ready compositions of a world's modules, without a worker."""

from collections.abc import Sequence

import torch

from app.compositions import runs
from app.compositions import service as compositions
from app.datasets import service as datasets
from app.db.pages import Window
from pnc_core.images import ImageSet
from pnc_core.method.composing.compose import compose
from pnc_core.module.composition import Composition, HeadKind
from tests.unit.serving.world import World


def made(world: World, places: Sequence[int], head: HeadKind = "affine") -> Composition:
    """A composition of some of the modules on random images."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (300, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pictures, torch.arange(300) % 10, tuple("0123456789"))
    bundles = [world.bundles[place] for place in places]
    return compose(world.target, bundles, images, head=head, most_features=40, keep_anyway=True)


def submitted(world: World, places: Sequence[int], head: str = "affine") -> str:
    """The id of a waiting composition."""
    ids = [world.modules[place] for place in places]
    with world.zoo.database.write() as session:
        (data,) = datasets.list_datasets(session, Window(1, None)).data
        return compositions.submit(session, target="low", module_ids=ids, dataset_id=data.id, head=head).id


def ready(world: World, places: Sequence[int], composition: Composition) -> str:
    """The id of a ready composition with this content."""
    row = submitted(world, places, composition.manifest.head)
    stored = world.zoo.store.put([composition.to_bytes()])
    with world.zoo.database.write() as session:
        lease = runs.claim(session, "worker")
        assert lease is not None
        assert lease.id == row
        facts = {k: v for k, v in composition.manifest.to_dict().items() if k != "target"}
        runs.succeed(session, lease, stored, facts)
    return row
