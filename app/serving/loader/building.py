"""Builds the snapshots of deployments from weights and bundles, and tries each new combination out."""

import logging
import threading
from collections.abc import Callable, Sequence

from app.deployments.desired import DesiredComposition, DesiredDeployment, DesiredModule
from app.modules import signatures
from app.process.troubles import is_passing, one_line
from app.serving.engine.engine import Engine
from app.serving.engine.modes import Mode
from app.serving.engine.programs import Branch, Program, Trunk, put_together
from app.serving.loader.module_cache import ModuleCache
from app.serving.loader.snapshot import Second, Snapshot, compose, load_branch, load_composition, load_trunk, try_out
from app.store.objects import seen_through, verified_file
from app.zoo import Zoo

log = logging.getLogger(__name__)


class Builder:
    """Keeps the targets and modules that it has loaded.

    Args:
        zoo: Holds weights and bundles.
        engine: Runs programs before they are served.
        mode: How networks are prepared.
        served: The served snapshot of a deployment; None: the deployment is not served.
    """

    def __init__(self, zoo: Zoo, engine: Engine, mode: Mode, served: Callable[[str], Snapshot | None]) -> None:
        self._zoo, self._engine, self._mode, self._served = zoo, engine, mode, served
        self.trunks: dict[str, Trunk] = {}
        """Loaded targets, by version."""
        self.modules = ModuleCache(zoo.settings.module_cache_bytes)
        self._loading = threading.Lock()
        """Held while a module is loaded. Attaching a loaded module does not need it."""

    def keep_only(self, wanted: Sequence[DesiredDeployment]) -> None:
        """Forget targets that no deployment needs, and make room among the modules."""
        used = {d.version_id for d in wanted}
        self.trunks = {key: trunk for key, trunk in self.trunks.items() if key in used}
        self.modules.evict({(d.version_id, m.digest) for d in wanted for m in d.needed}, used)

    def snapshot(self, wanted: DesiredDeployment) -> Snapshot | None:
        """The wanted snapshot; None: the engine of its target is not chosen yet."""
        trunk = self.trunks.get(wanted.version_id)
        if trunk is None:
            trunk = load_trunk(self._zoo, wanted, self._mode)
            self._try_out(wanted.name, trunk, ())
            self.trunks[wanted.version_id] = trunk
        if not trunk.has_engine(self._zoo.settings.program_seconds):
            return None
        program = self._program(wanted, trunk, wanted.modules, wanted.composition)
        return compose(wanted, trunk, program, self._second(wanted, trunk))

    def _second(self, wanted: DesiredDeployment, trunk: Trunk) -> Second | None:
        """The canary; None: there is none, or it cannot be loaded and the deployment is not served yet.

        In a process that serves an earlier generation, such a canary is a reason to refuse the wanted one. After a
        restart it is not: the attached modules must be served without it.
        """
        if wanted.canary is None:
            return None
        try:
            return Second(wanted.canary, self._program(wanted, trunk, wanted.canary.modules))
        except Exception as error:
            if self._served(wanted.name) is not None or is_passing(seen_through(self._zoo.store, error)):
                raise
            about = {"deployment": wanted.name, "generation": wanted.generation}
            log.warning("serving without the canary: %s", one_line(error), extra=about)
            return None

    def _program(
        self,
        wanted: DesiredDeployment,
        trunk: Trunk,
        modules: Sequence[DesiredModule],
        composition: DesiredComposition | None = None,
    ) -> Program:
        """The target with modules, tried out.

        The trunk and each branch have been warmed up alone. A new combination is tried as a whole. A served
        combination was tried before, and stays valid without one of its modules.
        """
        with self._zoo.database.read() as session:
            signatures.check_served(session, [module.id for module in modules])
        numbers = None if composition is None else load_composition(self._zoo, composition)
        program = put_together(trunk, [self._branch(wanted, trunk, module) for module in modules], numbers)
        if composition is not None or (len(modules) > 1 and not self._has_together(wanted.name, modules)):
            try_out(wanted.name, program, self._engine.answer_now, ())
        return program

    def _try_out(self, name: str, trunk: Trunk, branches: tuple[Branch, ...]) -> None:
        try_out(name, put_together(trunk, branches), self._engine.answer_now, self._engine.limits.tried)

    def _branch(self, wanted: DesiredDeployment, trunk: Trunk, module: DesiredModule) -> Branch:
        branch = self.modules.get(wanted.version_id, module.digest)
        if branch is None:
            return self.loaded(wanted, trunk, module)
        if not self._has_together(wanted.name, [module]):
            # An attached module must be loadable after a restart, so that its object is checked again.
            with verified_file(self._zoo.store, module.key, module.digest):
                pass
        return branch

    def loaded(self, wanted: DesiredDeployment, trunk: Trunk, module: DesiredModule) -> Branch:
        """Load a module and try it alone, unless another thread has just loaded it."""
        with self._loading:
            branch = self.modules.get(wanted.version_id, module.digest)
            if branch is None:
                branch = load_branch(self._zoo, wanted, trunk, module)
                self._try_out(module.id, trunk, (branch,))
                self.modules.put(wanted.version_id, module.digest, branch)
        return branch

    def _has_together(self, name: str, modules: Sequence[DesiredModule]) -> bool:
        snapshot = self._served(name)
        return snapshot is not None and snapshot.has_together(modules)
