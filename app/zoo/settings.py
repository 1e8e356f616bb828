"""Settings of every process, read once at its root from `PNC_*` environment variables."""

import json
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_dir
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _database_in(values: dict[str, Any]) -> str:
    return f"sqlite:///{values['data_dir']}/zoo.db"


def _objects_in(values: dict[str, Any]) -> str:
    return f"{values['data_dir']}/objects"


class Settings(BaseSettings):
    """What a process needs to know about its surroundings; the defaults are the embedded service."""

    model_config = SettingsConfigDict(env_prefix="PNC_", frozen=True, use_attribute_docstrings=True)

    data_dir: Path = Field(default_factory=lambda: Path(user_data_dir("pnc-zoo")))
    """Directory of everything the embedded service keeps."""
    database_url: str = Field(default_factory=_database_in)
    """SQLAlchemy URL: `sqlite:///...` or `postgresql+psycopg://...`."""
    store_url: str = Field(default_factory=_objects_in)
    """Directory of the object store."""
    host: str = "127.0.0.1"
    """Address that the API listens on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port that the API listens on."""
    serving_url: str | None = None
    """Where the serving process listens, e.g. `http://127.0.0.1:8001`; none: predictions answer 503."""
    serving_timeout: float = Field(30.0, gt=0)
    """Seconds that the API waits for the serving process."""
    allowed_hosts: tuple[str, ...] = ()
    """Names beside loopback and `host` that a request's Host header may carry."""
    lease_seconds: int = Field(20, ge=2)
    """A worker that stays silent this long loses its job."""
    heartbeat_seconds: int = Field(2, ge=1)
    """How often a worker renews its lease."""
    threads: int | None = Field(None, ge=1)
    """Threads that torch may use in one process; none: torch decides. Equal bundles need equal numbers of threads."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much the processes say on standard error."""
    max_upload_bytes: int = Field(8 * 1024**3, gt=0)
    """Largest file that can be uploaded."""
    max_image_bytes: int = Field(20 * 1024**2, gt=0)
    """Largest image that a prediction accepts."""
    max_body_bytes: int = Field(4 * 1024**2, gt=0)
    """Largest JSON body."""

    def environment(self) -> dict[str, str]:
        """These settings as the environment of a child process."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"PNC_{name.upper()}": v if isinstance(v, str) else json.dumps(v) for name, v in values.items()}
