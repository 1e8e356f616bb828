"""Settings of every process, read once at its root from `PNC_*` environment variables."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from platformdirs import user_data_dir
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

MAX_ATTEMPTS = 3


def _database_in(values: dict[str, Any]) -> str:
    return URL.create("sqlite", database=str(values["data_dir"] / "zoo.db")).render_as_string()


def _objects_in(values: dict[str, Any]) -> str:
    return f"{values['data_dir']}/objects"


class Settings(BaseSettings):
    """What a process needs to know about its surroundings; the defaults are the embedded service."""

    model_config = SettingsConfigDict(
        env_prefix="PNC_", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=lambda: Path(user_data_dir("pnc-zoo")))
    """Directory of everything the embedded service keeps."""
    database_url: str = Field(default_factory=_database_in)
    """SQLAlchemy URL: `sqlite:///...` or `postgresql+psycopg://...`."""
    broker_url: str | None = None
    """Redis that tells Celery workers of jobs, e.g. `redis://127.0.0.1:6379/0`; none: a worker looks by itself."""
    store_url: str = Field(default_factory=_objects_in)
    """Object store: a directory, or `s3://bucket` or `s3://bucket/prefix`."""
    store_endpoint: str | None = None
    """Address of an S3 server, e.g. `http://s3.example:7480`; none: Amazon's. Keys come from boto3's own chain."""
    store_public_endpoint: str | None = None
    """The same server as clients of the API reach it, for the URLs they are given; none: `store_endpoint`."""
    part_bytes: int = Field(64 * 1024**2, ge=5 * 1024**2, le=5 * 1024**3)
    """Larger files travel to and from S3 in parts of this size, and a broken transfer goes on with the next part."""
    url_seconds: int = Field(900, ge=1, le=900)
    """How long a presigned URL lets a client in."""
    pages: bool = True
    """Whether the API's process also has the web pages, at `/`."""
    host: str = "127.0.0.1"
    """Address that the API listens on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port that the API listens on."""
    require_keys: bool = False
    """Whether every request needs a key; without keys the service answers loopback alone."""
    published_on_loopback: bool = False
    """Says that only this machine reaches the service though it listens elsewhere, as in a container."""
    internal_key: str | None = Field(None, min_length=32, repr=False)
    """What the API proves itself with to serving processes, and a monitor to `/metrics`; needed with keys."""
    secret_key: str | None = Field(None, repr=False)
    """Encrypts secrets that the database must keep readable: 32 random bytes in URL-safe base64, the same on all
    machines. Several with commas: the first encrypts, all of them decrypt."""
    secret_key_file: Path | None = None
    """A file of such keys, one a line; none: `secret.key` in the data directory, made there for SQLite."""
    file_access: Literal["owner", "group"] = "owner"
    """Who may use the files of the data directory and of a store in a directory: its user, or the group too."""
    serving_url: str | None = None
    """Where the serving process listens, e.g. `http://127.0.0.1:8001`; none: predictions answer 503."""
    serving_timeout: float = Field(30.0, gt=0)
    """Seconds that the API waits for the serving process."""
    batch_images: int = Field(8, ge=1, le=1024)
    """Images that the serving process runs at once, at most."""
    batch_wait_ms: float = Field(1.0, ge=0, le=1000)
    """How long a batch waits for company once the device is free."""
    waiting_requests: int = Field(256, ge=1)
    """Predictions that may wait for the device; more are answered 503 with Retry-After."""
    waiting_images: int = Field(2**15, ge=1)
    """Images of predictions that may wait for the device, all together; more are answered 503 with Retry-After."""
    waiting_bytes: int = Field(2**29, ge=1)
    """Bytes of the bodies of predictions that are held at once; more are answered 503 with Retry-After."""
    workspace_share: float = Field(0.5, gt=0, le=1)
    """Of what may wait, and of the threads that read and write bodies, for one workspace; counts where keys are
    required."""
    request_images: int = Field(4096, ge=1)
    """Images of one prediction, at most; more are answered 413."""
    request_outputs: int = Field(2**20, ge=1)
    """Images times classes of one prediction, at most; more are answered 413."""
    answer_seconds: float = Field(20.0, gt=0)
    """A prediction that is not finished so long after its body has come is answered 504 and not run any further."""
    stuck_seconds: float = Field(60.0, gt=0)
    """A batch that takes longer makes the serving process's `/readyz` answer 503; `pnc up` then starts it again."""
    deterministic: bool = False
    """One shape for all batches and the plain memory layout: an image has one answer, whatever else is asked."""
    serving_precision: Literal["float32", "bf16"] = "float32"
    """Of the layers that the serving process runs; heads and logits are float32 always."""
    serving_compile: bool = False
    """Let torch.compile make what the serving process runs; it takes a minute for every network, and a C++ compiler."""
    device: str = Field("cpu", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """Where the serving process runs networks, as torch names it; `auto`: on a GPU that torch can use, else `cpu`."""
    module_cache_bytes: int = Field(1024**3, ge=0)
    """Modules that the serving process keeps in memory though they are not attached."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names beside loopback and `host` that a request's Host header may carry, separated by commas."""
    lease_seconds: int = Field(20, ge=2)
    """A worker that stays silent this long loses its job."""
    heartbeat_seconds: int = Field(2, ge=1)
    """How often a worker renews its lease."""
    worker_device: Literal["auto", "cpu", "cuda"] = "auto"
    """What a worker's jobs run on; `auto`: the accelerators that torch can use, else the processor."""
    worker_sizes: Annotated[tuple[Literal["small", "large"], ...], NoDecode] = ("small", "large")
    """Sizes of jobs that a Celery worker takes, separated by commas."""
    slots: int = Field(1, ge=1, le=64)
    """Jobs that a Celery worker runs at once; with accelerators, one for each is enough."""
    job_memory_bytes: int | None = Field(None, ge=2**29)
    """Memory that a job's process may allocate; more ends the attempt. None: as much as there is.
    A process that has only begun has a third of a GB."""
    max_attempts: int = Field(MAX_ATTEMPTS, ge=1, le=1000)
    """A job fails after so many attempts that died without getting any further, a version after so many that died.
    Machines that may be taken away at any moment need more."""
    checkpoint_seconds: float = Field(15.0, ge=0)
    """How often a running job keeps where it stands."""
    share_seconds: float = Field(10.0, ge=0)
    """Trials that take longer are shared among idle workers."""
    ring_again_seconds: int = Field(60, ge=1)
    """Workers are told once more of a job that none of them has taken for so long."""
    threads: int | None = Field(None, ge=1)
    """Threads of every process that runs networks; none: its share of the processors, and one where networks are small.
    Equal bundles need equal numbers of threads."""
    webhook_private: bool = False
    """Whether webhooks may point at loopback, private and link-local addresses."""
    webhook_retry_seconds: float = Field(5.0, gt=0)
    """Pause after the first failure to deliver to a webhook; each further one is three times as long, up to 6 h."""
    webhook_days: float = Field(3.0, gt=0)
    """A message that cannot be delivered for so long is given up, and a webhook that fails for so long is disabled."""
    log_format: Literal["text", "json"] = "text"
    """How a line of the log looks: for people, or one JSON object for whoever collects them."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much the processes say on standard error."""
    max_upload_bytes: int = Field(8 * 1024**3, gt=0)
    """Largest file that can be uploaded."""
    max_dataset_bytes: int = Field(64 * 1024**3, gt=0)
    """Bytes that a dataset's images may take once they are unpacked; equal ones of a small row group count once."""
    max_pixel_bytes: int = Field(64 * 1024**3, gt=0)
    """Bytes that the decoded images of a job may take; they lie in memory at once."""
    max_image_bytes: int = Field(20 * 1024**2, gt=0)
    """Largest image that a prediction accepts."""
    max_body_bytes: int = Field(4 * 1024**2, gt=0)
    """Largest JSON body."""
    max_streams: int = Field(1000, ge=1)
    """Event streams that a process of the API keeps open at once, and at most half of the files that it may open."""
    max_streams_per_key: int = Field(100, ge=1)
    """Event streams of one key at each process of the API, or of one address where there are no keys."""

    @field_validator("allowed_hosts", "worker_sizes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("broker_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://")):
            raise ValueError(f"expected redis://host:port/database or rediss://..., got {value.partition('://')[0]!r}")
        return value

    @model_validator(mode="after")
    def _beat_in_time(self) -> Self:
        if self.heartbeat_seconds >= self.lease_seconds:
            raise ValueError(
                f"heartbeat_seconds: expected less than lease_seconds ({self.lease_seconds}), "
                f"got {self.heartbeat_seconds}"
            )
        return self

    @model_validator(mode="after")
    def _exact_or_fast(self) -> Self:
        if self.deterministic and (self.serving_compile or self.serving_precision != "float32"):
            raise ValueError(
                "deterministic: expected float32 and no serving_compile beside it; choose one or the other"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def environment(self) -> dict[str, str]:
        """These settings as the environment of a child process."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"PNC_{n.upper()}": ",".join(v) if isinstance(v, list) else str(v) for n, v in values.items()}
