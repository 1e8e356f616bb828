"""Simulated users of the service, each in a thread with a separate client."""

import json
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from app import demo
from app.demo import CLONED, HIGH, LOW
from pnc_client import ApiError, Client, ClientError
from pnc_core.config import CloneConfig, NetworkSpec
from tests.fuzz.files import feed

NAME = "digits"
"""Name of the deployment."""
BUSY = {429, 503, 504}
"""HTTP statuses of an overloaded service."""
QUICK = CloneConfig(classes=CLONED, preset="fast", shortlist=2, views=1, screen_images=200)
MODULES = 4
"""Number of the newest modules that are attached and detached."""


@dataclass
class Tally:
    """Counts of visits, and unexpected results."""

    done: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """Count one visit of a kind."""
        with self._lock:
            self.done[what] += 1

    def complain(self, what: str) -> None:
        """Record an unexpected result."""
        with self._lock:
            self.unexpected.append(what)

    def keep(self, module: str) -> None:
        """Add a module that swaps may use."""
        with self._lock:
            self.modules = [*self.modules, module][-MODULES:]


@dataclass(frozen=True)
class Ground:
    """The service and the files that visitors use."""

    url: str
    dataset: str
    folder: Path
    """Folder with the files of both networks and of the images."""
    images: list[bytes]
    """PNG files of all ten digits."""


Visit = Callable[[Client, Ground, Tally, random.Random], None]


def predict(client: Client, ground: Ground, tally: Tally, dice: random.Random) -> None:
    """Predict one image; the response must have exactly the classes of one revision."""
    answer = client.deployments.predict(NAME, dice.choice(ground.images))
    classes = [c.name for c in answer.classes]
    new = [name for name in classes if name not in LOW]
    if sorted(classes) != sorted({*LOW, *new}) or not set(new) <= set(HIGH) or bool(new) != bool(answer.modules):
        tally.complain(f"generation {answer.generation} answers {classes} with modules {answer.modules}")
    tally.count("predictions")


def swap(client: Client, ground: Ground, tally: Tally, dice: random.Random) -> None:
    """Replace the attached module by another one or by none."""
    if tally.modules:
        client.deployments.set_modules(NAME, dice.choice([[], [dice.choice(tally.modules)]]))
        client.deployments.wait(NAME)
        tally.count("swaps")
    tally.stop.wait(0.5)


def clone(client: Client, ground: Ground, tally: Tally, dice: random.Random) -> None:
    """Run a job with random parameters; cancel one job in five."""
    classes = tuple(sorted(dice.sample(HIGH, dice.randint(1, 3))))
    config = replace(QUICK, classes=classes, seed=dice.randrange(1000), preset=dice.choice(["fast", "joint"]), epochs=4)
    job = client.jobs.create("digits-low", "digits-high", ground.dataset, config)
    if dice.random() < 0.2:
        tally.stop.wait(dice.uniform(0, 5))
        client.jobs.cancel(job.id)
    job = client.jobs.wait(job.id)
    if job.state == "succeeded" and job.module is not None:
        tally.keep(job.module)
    elif job.state != "cancelled":
        tally.complain(f"{job.id} ended {job.state}: {job.problem}")
    tally.count(f"jobs_{job.state}")


def bring(client: Client, ground: Ground, tally: Tally, dice: random.Random) -> None:
    """Register a network and images under new names; archive the network when it is ready."""
    name = f"brought-{tally.done['uploads']}"
    path = ground.folder / f"{dice.choice(['digits-low', 'digits-high'])}.safetensors"
    spec = NetworkSpec(**json.loads(path.with_suffix(".json").read_text()))
    version = client.models.push(name, spec, path)
    client.datasets.push(ground.folder / "digits.parquet", name=name)
    if client.models.wait(name, version.number).status != "ready":
        tally.complain(f"{name} was not accepted")
    client.models.archive(name)
    tally.count("uploads")
    tally.stop.wait(3)


def misuse(client: Client, ground: Ground, tally: Tally, dice: random.Random) -> None:
    """Send hostile files and invalid requests; the service must refuse each with a reason."""
    folder = ground.folder / "hostile"
    folder.mkdir(exist_ok=True)
    files, _, wrong = feed(ground.url, None, folder, every=dice.randint(5, 15))
    for complaint in wrong:
        tally.complain(f"hostile file: {complaint}")
    with httpx.Client(base_url=ground.url, timeout=60, trust_env=False) as http:
        for method, path, body in _NONSENSE:
            answer = http.request(method, path, content=body)
            said = answer.json()
            if not 400 <= answer.status_code < 500 or not (said.get("detail") or said.get("error")):
                tally.complain(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
    tally.done["bad_inputs"] += files + len(_NONSENSE)
    tally.stop.wait(5)


_NOBODY = b'{"target": "nobody", "source": "digits-high", "dataset": "ds_0", "config": {"classes": []}}'
_NO_TENSOR = b'{"inputs": [{"name": "images", "datatype": "FP64", "shape": [1], "data": []}]}'
_NONSENSE = (
    ("POST", "/v1/jobs", b"{"),
    ("POST", "/v1/jobs", _NOBODY),
    ("PUT", f"/v1/deployments/{NAME}/modules/mod_nobody", b""),
    ("GET", "/v1/models/%00", b""),
    ("POST", f"/v1/deployments/{NAME}/predict", b"no image"),
    ("POST", f"/v2/models/{NAME}/infer", _NO_TENSOR),
    ("GET", "/v1/jobs?limit=-1", b""),
    ("PUT", "/v1/deployments/nobody", b'{"target": "nobody@7"}'),
)
VISITS: dict[str, tuple[Visit, int]] = {
    "predict": (predict, 2),
    "swap": (swap, 1),
    "clone": (clone, 2),
    "bring": (bring, 1),
    "misuse": (misuse, 1),
}
"""Kinds of visits, with the number of visitors of each."""


def visit_all(ground: Ground, tally: Tally, seconds: float, seed: int, tick: Callable[[float], None]) -> None:
    """Run all visitors for some seconds, and wait until they have ended."""
    threads = [
        threading.Thread(target=_visit, args=(visit, ground, tally, random.Random(f"{seed} {name} {number}")))
        for name, (visit, many) in VISITS.items()
        for number in range(many)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick(seconds - left)
        time.sleep(min(left, 2.0))
    tally.stop.set()
    for thread in threads:
        thread.join()


def _visit(visit: Visit, ground: Ground, tally: Tally, dice: random.Random) -> None:
    with Client(ground.url, timeout=120) as client:
        while not tally.stop.is_set():
            try:
                visit(client, ground, tally, dice)
            except ApiError as error:
                if error.status in BUSY:
                    tally.count("turned_away")
                    tally.stop.wait(1)
                else:
                    tally.complain(f"{visit.__name__}: {error}")
            except (ClientError, httpx.HTTPError, TimeoutError, AssertionError):
                tally.complain(f"{visit.__name__}: {traceback.format_exc(limit=-3)}")


def png_images(material: demo.Material) -> list[bytes]:
    """Test images as PNG files."""
    return [demo.png(image) for image in material.test.images[:100]]
