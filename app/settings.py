"""Settings of all processes. Each process reads them once from the environment variables `PNC_*`.

`PNC_<SETTING>_FILE` names a file with the value, so that a secret need not be in the environment.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from platformdirs import user_data_dir
from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from sqlalchemy import URL

from pnc_client.schemas.imports import DEFAULT_HOSTS

MAX_ATTEMPTS = 3


def _database_in(values: dict[str, Any]) -> str:
    return URL.create("sqlite", database=str(values["data_dir"] / "zoo.db")).render_as_string()


def _objects_in(values: dict[str, Any]) -> str:
    return f"{values['data_dir']}/objects"


class _Files(PydanticBaseSettingsSource):
    """Values from the files that `PNC_<SETTING>_FILE` names. A variable `PNC_<SETTING>` takes precedence."""

    def __call__(self) -> dict[str, Any]:
        """All values that are in files."""
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(field, name)[0] for name, field in fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """The text of a setting's file without the blanks around it; None: no file is named."""
        variable = f"PNC_{field_name.upper()}_FILE"
        named = os.environ.get(variable)
        # A setting may itself be the name of a file, such as PNC_SECRET_KEY_FILE.
        if named is None or f"{field_name}_file" in self.settings_cls.model_fields:
            return None, field_name, False
        try:
            return Path(named).read_text().strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "bytes that are no text"
            raise SettingsError(
                f"{variable}: expected a readable text file, got {named}: {reason}; correct it"
            ) from None


class Settings(BaseSettings):
    """Settings of a process. The defaults are those of the embedded service."""

    model_config = SettingsConfigDict(
        env_prefix="PNC_", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=lambda: Path(user_data_dir("pnc-zoo")))
    """Directory of all files of the embedded service."""
    database_url: str = Field(default_factory=_database_in)
    """SQLAlchemy URL: `sqlite:///...` or `postgresql+psycopg://...`."""
    database_connections: int = Field(8, ge=1, le=64)
    """Connections to PostgreSQL that a process keeps open; further ones are closed after their use."""
    broker_url: str | None = None
    """Redis for notices to Celery workers, e.g. `redis://127.0.0.1:6379/0`; none: a worker polls the database."""
    store_url: str = Field(default_factory=_objects_in)
    """Object store: a directory, or `s3://bucket` or `s3://bucket/prefix`."""
    store_endpoint: str | None = None
    """Address of an S3 server, e.g. `http://s3.example:7480`; none: Amazon's. boto3 looks for the keys as usual."""
    store_public_endpoint: str | None = None
    """Address of the same server in URLs for clients of the API; none: `store_endpoint`."""
    part_bytes: int = Field(64 * 1024**2, ge=5 * 1024**2, le=5 * 1024**3)
    """Larger files are sent to S3 in parts of this size. A client's broken transfer continues with the next part."""
    url_seconds: int = Field(900, ge=1, le=900)
    """Validity of presigned URLs in seconds."""
    pages: bool = True
    """Whether the API's process also serves the web pages, at `/`."""
    host: str = "127.0.0.1"
    """Address that the API listens on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port that the API listens on."""
    require_keys: bool = False
    """Whether every request needs a key. Without keys the service may listen on loopback only."""
    published_on_loopback: bool = False
    """States that only this machine reaches the service although it listens on another address, as in a container."""
    internal_key: str | None = Field(None, min_length=32, repr=False)
    """Secret by which serving processes recognize the API, and `/metrics` a monitor. Required with `require_keys`."""
    secret_key: str | None = Field(None, repr=False)
    """Key that encrypts secrets in the database: 32 random bytes in URL-safe base64, the same on all machines. Several
    keys are separated by commas: the first encrypts, and all decrypt."""
    secret_key_file: Path | None = None
    """File of such keys, one a line; none: `secret.key` in the data directory, which is created for SQLite."""
    file_access: Literal["owner", "group"] = "owner"
    """Who may use the files of the data directory and of a directory store: the user, or also the user's group."""
    serving_url: str | None = None
    """Address of the serving process, e.g. `http://127.0.0.1:8001`; none: predictions are answered 503."""
    serving_timeout: float = Field(30.0, gt=0)
    """Seconds that the API waits for the serving process."""
    batch_images: int = Field(8, ge=1, le=1024)
    """Most images in a batch of the serving process."""
    batch_wait_ms: float = Field(1.0, ge=0, le=1000)
    """Milliseconds for which a batch waits for further images when the device is free."""
    waiting_requests: int = Field(256, ge=1)
    """Most predictions that wait for the device; further ones are answered 503 with Retry-After."""
    waiting_images: int = Field(2**15, ge=1)
    """Most images of all predictions that wait for the device; further ones are answered 503 with Retry-After."""
    waiting_bytes: int = Field(2**29, ge=1)
    """Most bytes of prediction bodies in memory; further predictions are answered 503 with Retry-After."""
    workspace_share: float = Field(0.5, gt=0, le=1)
    """Largest share of one workspace in these limits, and in the threads that read and write bodies. Applies only with
    `require_keys`."""
    request_images: int = Field(4096, ge=1)
    """Most images in one prediction; more are answered 413."""
    request_outputs: int = Field(2**20, ge=1)
    """Largest product of images and classes in one prediction; more are answered 413."""
    advice_seconds: float = Field(50.0, gt=0)
    """Time limit of all forecasts of a request. One for small networks takes about ten seconds, half of them to start.
    Clients usually wait for an answer for 60 seconds."""
    answer_seconds: float = Field(20.0, gt=0)
    """Time limit of a prediction after its body has arrived. A later one is answered 504 and dropped."""
    stuck_seconds: float = Field(60.0, gt=0)
    """Time limit of a batch. After it, `/readyz` of the serving process answers 503, and `pnc up` restarts it."""
    deterministic: bool = False
    """One batch size and the plain memory layout: the answer to an image does not depend on other requests."""
    serving_precision: Literal["float32", "bf16"] = "float32"
    """Precision of layers in the serving process. Heads and logits are always float32."""
    serving_engine: Literal["onnxruntime", "torch"] = "onnxruntime"
    """Engine of the serving process. ONNX Runtime is used on the CPU in float32, and torch for everything else."""
    program_seconds: float = Field(15.0, ge=0)
    """Longest wait of a new target for its program for ONNX Runtime. After it, torch runs the target without modules
    for as long as this process serves it, so that its logits never change in the last bits."""
    program_cache_bytes: int = Field(2**31, ge=0)
    """Most bytes of programs for ONNX Runtime in the data directory, where a restarted serving process finds them."""
    serving_compile: bool = False
    """Whether serving compiles networks with torch.compile. Takes a minute for every network and a C++ compiler."""
    device: str = Field("cpu", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    """Device of the serving process, as torch names it; `auto`: a GPU that torch can use, else `cpu`."""
    module_cache_bytes: int = Field(1024**3, ge=0)
    """Most bytes of modules in the memory of the serving process. Attached modules always stay."""
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Allowed names in the Host header beside loopback and `host`, separated by commas."""
    lease_seconds: int = Field(20, ge=2)
    """A worker without a heartbeat for this time loses its job."""
    heartbeat_seconds: int = Field(2, ge=1)
    """Time between a worker's heartbeats, which renew its lease."""
    worker_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of a worker's jobs; `auto`: the accelerators that torch can use, else the processor."""
    worker_sizes: Annotated[tuple[Literal["small", "large"], ...], NoDecode] = ("small", "large")
    """Sizes of jobs that a Celery worker takes, separated by commas."""
    slots: int = Field(1, ge=1, le=64)
    """Jobs that a Celery worker runs at once. With accelerators, one job for each is enough."""
    health_port: int | None = Field(None, ge=1, le=65535)
    """Port on which a Celery worker answers /healthz and /readyz, on the address `host`; none: on no port."""
    job_memory_bytes: int | None = Field(None, ge=2**29)
    """Most memory of a job's process; an attempt that needs more ends. None: no limit.
    A process takes a third of a GB at its start."""
    max_attempts: int = Field(MAX_ATTEMPTS, ge=1, le=1000)
    """A job fails after this number of attempts that died without progress, and a check of a version after this number
    of attempts that died. Machines that are often taken away need more attempts."""
    event_days: float = Field(30.0, gt=0)
    """Days after which events of jobs are deleted. Jobs, attempts and trials stay."""
    checkpoint_seconds: float = Field(15.0, ge=0)
    """Time between the checkpoints of a running job."""
    share_seconds: float = Field(10.0, ge=0)
    """Trials that take longer are shared among idle workers."""
    ring_again_seconds: int = Field(60, ge=1)
    """The notice of a job is sent again if no worker has taken the job for this time."""
    threads: int | None = Field(None, ge=1)
    """Threads of every process that runs networks; none: a share of the processors, and one for small networks.
    Only runs with equal numbers of threads give identical bundles."""
    webhook_private: bool = False
    """Whether webhooks may use loopback, private and link-local addresses."""
    webhook_retry_seconds: float = Field(5.0, gt=0)
    """Pause after the first failed delivery to a webhook. Each further pause is three times as long, up to 6 h."""
    webhook_days: float = Field(3.0, gt=0)
    """Days after which an undelivered message is dropped and a failing webhook is disabled."""
    log_format: Literal["text", "json"] = "text"
    """Format of a log line: text for people, or a JSON object for log collectors."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of messages in the log."""
    max_upload_bytes: int = Field(8 * 1024**3, gt=0)
    """Most bytes of an uploaded file."""
    import_hosts: Annotated[tuple[str, ...], NoDecode] = DEFAULT_HOSTS
    """Hosts that imports may download from, separated by commas; `*.` stands for any subdomain."""
    import_bytes: int = Field(8 * 1024**3, gt=0)
    """Most bytes of a file that is imported."""
    hub_cache_dir: Path | None = None
    """Cache of Hugging Face repositories of workers; none: the default of huggingface_hub."""
    max_dataset_bytes: int = Field(64 * 1024**3, gt=0)
    """Most bytes of a dataset's unpacked image files. Equal files of a small row group count once."""
    max_pixel_bytes: int = Field(64 * 1024**3, gt=0)
    """Most bytes of a job's decoded images, which are all in memory at once."""
    max_image_bytes: int = Field(20 * 1024**2, gt=0)
    """Most bytes of a prediction's body, before and after decompression."""
    max_body_bytes: int = Field(4 * 1024**2, gt=0)
    """Most bytes of a JSON body."""
    max_streams: int = Field(1000, ge=1)
    """Most event streams that are open at once in a process of the API. Half of its open files is a further limit."""
    max_streams_per_key: int = Field(100, ge=1)
    """Most event streams of one key, or of one address without keys, in a process of the API."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then variables, then files that variables name."""
        return init_settings, env_settings, _Files(settings_cls)

    @field_validator("allowed_hosts", "import_hosts", "worker_sizes", mode="before")
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
        """Whether the API listens on loopback."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def environment(self) -> dict[str, str]:
        """Environment variables of these settings, for a child process."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {f"PNC_{n.upper()}": ",".join(v) if isinstance(v, list) else str(v) for n, v in values.items()}
