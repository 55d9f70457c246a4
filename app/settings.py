"""Settings of the API process, read from the environment once at its entry."""

import re
from typing import Annotated, Self, TypedDict

from pydantic import AfterValidator, Field, SecretStr, model_validator

from models_store.settings import StoreSettings

_KIB = 1024
_MIB = 1024 * _KIB
_GIB = 1024 * _MIB


_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?")


def _checked_origins(text: str | None) -> str | None:
    for origin in (text or "").split(","):
        if text is not None and not _ORIGIN.fullmatch(origin):
            raise ValueError("origins look like https://host:port, with commas between them")
    return text


_NAMED = r"[a-z0-9][a-z0-9._-]{0,63}"
_PRELOADED = re.compile(f"({_NAMED}/)?{_NAMED}([@:]{_NAMED})?")


def _checked_preload(text: str | None) -> str | None:
    for ref in (text or "").split(","):
        if text is not None and not _PRELOADED.fullmatch(ref.strip()):
            raise ValueError("models look like name, name@alias, name:version or project/name")
    return text


_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def _checked_root_path(text: str | None) -> str | None:
    if text is not None and not _ROOT_PATH.fullmatch(text):
        raise ValueError("a root path looks like /densityd, without a slash at its end")
    return text


class ParserLimits(TypedDict):
    """Limits of a process that reads a file, as the functions that start one take them."""

    memory_bytes: int
    timeout_s: float


class ApiSettings(StoreSettings):
    """Settings of the API: its address, and the limits of a request."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0: any.")
    behind_proxy: bool = Field(
        default=False,
        description="True: a reverse proxy bounds connections, heads, bodies and time before the service.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Serve callers without an API key on an address that is not loopback, until a"
        " key is made.",
    )
    root_path: Annotated[str | None, AfterValidator(_checked_root_path)] = Field(
        default=None,
        description="Path below which a proxy serves the service, such as /densityd. Unset: none.",
    )
    database_pool: int = Field(
        default=8,
        ge=1,
        le=500,
        description="Connections of a process to the database that stay open; as many again may open for "
        "a moment, so that keys, events and readiness find one while requests have theirs.",
    )
    cors_origins: Annotated[str | None, AfterValidator(_checked_origins)] = Field(
        default=None,
        description="Origins whose pages may use the API, such as "
        "https://a.example,https://b.example. Unset: none.",
    )

    max_upload_bytes: int = Field(
        default=2 * _GIB,
        ge=_KIB,
        description="Largest dataset file in bytes, as sent and decompressed.",
    )
    max_rows: int = Field(
        default=50_000_000, ge=2, description="Largest number of rows of a dataset."
    )
    max_columns: int = Field(
        default=4_096, ge=1, le=1_000_000, description="Largest number of columns of a dataset."
    )
    max_table_bytes: int = Field(
        default=4 * _GIB,
        ge=_KIB,
        description="Largest size of a stored dataset, and of the response to a scoring request, "
        "in bytes.",
    )
    parse_memory_bytes: int = Field(
        default=_GIB,
        ge=64 * _MIB,
        description="Memory limit of the process that parses an upload; a file that needs more is"
        " refused.",
    )
    parse_timeout_s: float = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Time limit, in seconds, for parsing an upload or checking an imported model.",
    )
    max_parsers: int = Field(
        default=3,
        ge=1,
        le=64,
        description="Number of uploads that are parsed at the same time. Others wait, and "
        "projects take turns. One project uses all parsers but one at most. Where all are busy, a file "
        "of at most 1 MiB is tried in one more, for 3 s of a processor and in 256 MiB, before it waits.",
    )

    max_json_bytes: int = Field(
        default=4 * _MIB,
        ge=_KIB,
        le=_GIB,
        description="Largest JSON body in bytes, as sent and decompressed.",
    )
    max_bodies_bytes: int = Field(
        default=256 * _MIB,
        ge=_KIB,
        description="Memory for incomplete request bodies of all callers, for large results, and "
        "for responses of rows while they are read, 2 MiB each, which use three quarters of it at "
        "most. A project uses half of each while no other does, and never more than is left.",
    )
    max_body_files_bytes: int = Field(
        default=32 * _GIB,
        ge=_KIB,
        description="Disk space for large responses of all callers that wait to be read, in each API "
        "process; one project uses half of it at most, and never more than is left.",
    )
    max_score_bytes: int = Field(
        default=64 * _MIB,
        ge=_KIB,
        description="Largest body of a scoring request in any format but JSON, in bytes after "
        "decompression; its rows and its response are in memory as a whole.",
    )
    max_score_rows: int = Field(
        default=1_000_000, ge=1, description="Largest number of rows of a scoring request."
    )
    max_sample_rows: int = Field(
        default=100_000_000, ge=1, description="Largest number of rows of a sampling request."
    )
    max_queued_jobs: int = Field(
        default=1_000,
        ge=1,
        description="Largest number of jobs of a project that wait for a worker.",
    )
    rate_limit: float = Field(
        default=0,
        ge=0,
        description="Requests per second of a key that has no rate of its own; 0: no limit.",
    )
    rate_burst_s: float = Field(
        default=2,
        gt=0,
        le=3_600,
        description="Length of the longest burst: a key that was idle may send the requests of "
        "this many seconds at once.",
    )
    max_parameters: int = Field(
        default=50_000_000, ge=1, description="Largest number of parameters (weights) of a flow."
    )
    max_layers: int = Field(
        default=256, ge=1, description="Largest number of hidden layers of all networks of a flow."
    )
    max_training_memory_bytes: int = Field(
        default=4 * _GIB,
        ge=_MIB,
        description="Largest estimated memory of a training job, in bytes.",
    )
    max_model_bytes: int = Field(
        default=_GIB,
        ge=_MIB,
        description="Largest estimated memory of a loaded model while it computes. A larger flow "
        "is neither trained nor imported nor loaded.",
    )
    import_memory_bytes: int = Field(
        default=4 * _GIB,
        ge=256 * _MIB,
        description="Memory limit of the process that checks an imported model; an API process "
        "runs one at a time.",
    )
    export_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Key that signs exported versions (HMAC-SHA256) and checks the signatures of "
        "imported ones; services that exchange models share it. At least 32 characters; unset: no "
        "signatures.",
    )
    signed_imports: bool = Field(
        default=False,
        description="True: an imported file must have a signature of DENSITYD_EXPORT_KEY.",
    )
    max_result_bytes: int = Field(
        default=64 * _GIB,
        ge=_MIB,
        description="Largest result of a bulk job, in bytes of its numbers. The running job uses "
        "twice as much disk space.",
    )
    bulk_part_rows: int | None = Field(
        default=None,
        ge=1,
        description="Rows of a part of a bulk job, which one worker computes; unset: about a minute's.",
    )

    max_open_requests: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Largest number of open requests of a key, from the first byte of the body to"
        " the last of the response; further requests get 429. All keys of a project "
        "together may have twice as many, a service without keys eight times as many.",
    )
    max_open_streams: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Largest number of event streams among the open requests of a key; of a "
        "project and without keys, as above.",
    )
    max_open_uploads: int = Field(
        default=16,
        ge=1,
        le=100_000,
        description="Largest number of uploads and imports among the open requests of a key, "
        "until they are stored.",
    )

    ready_look_s: float = Field(
        default=15.0,
        ge=0.05,
        le=3_600,
        description="Seconds between two checks of the database and the store, whose result "
        "`/readyz` returns. While a check fails, they are repeated every second.",
    )

    preload: Annotated[str | None, AfterValidator(_checked_preload)] = Field(
        default=None,
        description="Models that are loaded before `/readyz` is 200, with commas between them: "
        "references such as shuttle, shuttle@live or shuttle:3, those of another project as "
        "project/shuttle.",
    )
    stale_s: float = Field(
        default=300.0,
        ge=0,
        le=86_400,
        description="Seconds for which models and API keys that were in use are served from memory "
        "while a database server is unavailable. A key that is revoked or expires meanwhile is "
        "accepted for as long.",
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=3_600,
        description="Seconds between a signal to stop and the end of listening. Meanwhile "
        "`/readyz` is 503, requests are served, and connections close with their responses, "
        "so that a load balancer sends no more.",
    )
    drain_s: float = Field(
        default=4.0,
        ge=0,
        le=3_600,
        description="Seconds for the requests that are open when the process stops listening.",
    )

    result_link_s: int | None = Field(
        default=None,
        ge=1,
        le=604_800,
        description="Seconds for which signed addresses of results in a bucket are valid, to which "
        "downloads are redirected. Unset: the bytes pass through the service.",
    )

    model_cache_bytes: int = Field(
        default=_GIB, ge=0, description="Memory for the loaded models of a process, in bytes."
    )
    api_processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Number of API processes on the port; each loads its own models.",
    )
    max_waiting: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Largest number of scoring and sampling requests that wait for the engine; "
        "further ones get 503.",
    )
    max_wait_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Longest wait for the engine, in seconds; then the response is 503.",
    )
    engine_stall_s: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="Seconds without progress of the engine after which the process reports that "
        "it is not ready. After twice as long it exits, so that it is restarted.",
    )
    inference_threads: int = Field(
        default=1, ge=1, le=256, description="Number of threads of PyTorch in an API process."
    )

    @model_validator(mode="after")
    def _check_signed_imports(self) -> Self:
        if self.signed_imports and self.export_key is None:
            raise ValueError("DENSITYD_SIGNED_IMPORTS needs DENSITYD_EXPORT_KEY to check with")
        return self

    @property
    def signing_key(self) -> str | None:
        """Return the key of the signatures of exported versions; None: there are none."""
        return None if self.export_key is None else self.export_key.get_secret_value()

    @property
    def parser_limits(self) -> ParserLimits:
        """Return the limits of a process that reads a file."""
        return {"memory_bytes": self.parse_memory_bytes, "timeout_s": self.parse_timeout_s}
