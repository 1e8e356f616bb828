"""Files of the Hugging Face Hub, through the cache of huggingface_hub.

A token comes only from `HF_TOKEN` or the login of huggingface_hub. `HF_HUB_OFFLINE=1` reads the cache alone.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils.tqdm import tqdm

from app.imports.sources import SourceError, check_host
from app.sources.found import Rules, digest_of
from pnc_client.schemas.models import Origin

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, the preferred first."""


class Repository:
    """One repository at one revision.

    Args:
        name: `owner/name`.
        revision: Branch, tag or commit; none: the default branch.
        rules: Allowed hosts, largest size and progress.
    """

    def __init__(self, name: str, revision: str | None, rules: Rules) -> None:
        self.name, self.revision, self._rules = name, revision, rules

    def file(self, name: str) -> Path:
        """A file of the repository. Later files come from the same commit.

        Raises:
            SourceError: the file does not exist, is too large, or is neither reachable nor in the cache.
        """
        found = self._found(name)
        if found is None:
            raise SourceError(f"{self}: expected the file {name}, got a repository without it; use another repository")
        return found

    def optional(self, name: str) -> Path | None:
        """A file of the repository; none: it has no such file, or the cache does not have it while offline."""
        try:
            return self._found(name)
        except SourceError:
            return None

    def weights(self) -> Path:
        """The repository's weights: safetensors, and on the user's own machine also files of `torch.save`.

        Raises:
            SourceError: the repository has neither.
        """
        names = _WEIGHTS if self._rules.own_machine else _WEIGHTS[:1]
        for name in names:
            if (found := self._found(name, final=name == names[-1])) is not None:
                return found
        raise SourceError(
            f"{self}: expected {' or '.join(names)}, got a repository without; import it on your machine, or use "
            "another one"
        )

    def read_json(self, file: Path) -> dict[str, Any]:
        """The object in a JSON file.

        Raises:
            SourceError: the file holds no JSON object.
        """
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise SourceError(f"{self}: expected a JSON object in {file.name}, got other text; use another repository")
        return value

    def url(self, file: Path) -> str | None:
        """Address of a file that was fetched; none: it has no address."""
        return f"{constants.ENDPOINT}/{self.name}/resolve/{self.revision}/{quote(file.name)}"

    def origin(self, file: Path) -> Origin:
        """Where a fetched file of weights comes from."""
        return Origin(
            source=f"hf://{self.name}", revision=self.revision, url=self.url(file), file=file.name,
            digest=digest_of(file),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")

    def _found(self, name: str, *, final: bool = True) -> Path | None:
        if not self._rules.own_machine:
            _restrict(self._rules)
        try:
            path = Path(self._download(name))
        except errors.LocalEntryNotFoundError:
            if not final:
                return None
            raise SourceError(
                f"{self}: expected {name} from {constants.ENDPOINT} or in the cache "
                f"{self._rules.cache_dir or constants.HF_HUB_CACHE}, got neither; connect, or fill the cache first"
            ) from None
        except errors.EntryNotFoundError:
            return None
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise SourceError(
                f"{self}: expected a repository and revision that can be read, got none; check the name, or set "
                "HF_TOKEN for a private repository"
            ) from None
        except (errors.HfHubHTTPError, errors.HFValidationError) as error:
            raise SourceError(f"{self}: expected {name}, got: {first_line(error)}; try again") from None
        parts = path.parts
        self.revision = parts[parts.index("snapshots") + 1]
        return path

    def _download(self, name: str) -> str:
        return huggingface_hub.hf_hub_download(
            self.name, name, revision=self.revision, cache_dir=self._rules.cache_dir, tqdm_class=_bar(self._rules)
        )


class Folder(Repository):
    """A folder with the files of a repository, as `pnc models export` writes it.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path.name, None, Rules(own_machine=True))
        self._path = path

    def url(self, file: Path) -> None:
        """A folder has no address."""

    def __str__(self) -> str:
        return str(self._path)

    def _found(self, name: str, *, final: bool = True) -> Path | None:
        path = self._path / name
        return path if path.is_file() else None


def first_line(error: Exception) -> str:
    """The first line of an error's message, or the error's kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _bar(rules: Rules) -> type[Any]:
    """A progress bar that shows nothing itself, checks the size and passes the progress on."""

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.done, self.size = int(options.get("initial") or 0), int(options.get("total") or 0)
            self._check(self.size)

        def update(self, n: float | None = 1) -> bool | None:
            self.done += int(n or 0)
            self._check(self.done)
            rules.report(self.done, self.size)
            return None

        def _check(self, size: int) -> None:
            if size > rules.max_bytes:
                raise SourceError(f"expected a file of at most {rules.max_bytes} bytes, got {size}; raise the limit")

    return Bar


def _restrict(rules: Rules) -> None:
    """Let huggingface_hub's HTTP client of this process reach the allowed hosts alone."""
    constants.HF_HUB_DISABLE_XET = True  # its transfers use another client
    session = huggingface_hub.get_session()
    hooks = session.event_hooks
    if any(getattr(hook, "rules", None) == rules.hosts for hook in hooks["request"]):
        return
    check: Callable[[Any], None] = _Check(rules.hosts)
    session.event_hooks = {**hooks, "request": [*hooks["request"], check]}


class _Check:
    def __init__(self, hosts: tuple[str, ...]) -> None:
        self.rules = hosts

    def __call__(self, request: Any) -> None:
        check_host(request.url.host, self.rules)
