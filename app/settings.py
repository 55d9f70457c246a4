"""Settings of the API process, read from the environment once at its entry."""

import re
from ipaddress import ip_network
from typing import Annotated, Any, TypedDict

from pydantic import AfterValidator, Field, ValidationInfo

from models_store.settings import StoreSettings, internal

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


def _checked_issuer(url: str | None) -> str | None:
    if url is not None and not url.startswith(("https://", "http://")):
        raise ValueError("an issuer looks like https://login.example.org/realms/a")
    return url


def _checked_audience(audience: str | None, info: ValidationInfo) -> str | None:
    if audience is None and info.data.get("oidc_issuer") is not None:
        raise ValueError("it is needed with DENSITYD_OIDC_ISSUER: a token for others opens nothing")
    return audience


def _checked_networks(text: str | None) -> str | None:
    for network in (text or "").split(","):
        if text is not None:
            ip_network(network.strip())
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


_DRAIN_S = {
    False: 4.0,
    True: 20.0,
}  # for open requests; the longer where a balancer stands before it


def _part_of_memory(part: int) -> Any:  # noqa: ANN401 - as `Field`
    return Field(default_factory=lambda given: given["memory_bytes"] // part, exclude=True, ge=0)


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
    oidc_issuer: Annotated[str | None, AfterValidator(_checked_issuer)] = Field(
        default=None,
        description="OpenID Connect issuer, such as https://login.example.org/realms/a, whose tokens are"
        " accepted beside keys. Unset: none.",
    )
    oidc_audience: Annotated[str | None, AfterValidator(_checked_audience)] = Field(
        default=None,
        validate_default=True,
        description="Audience that a token of the issuer must name, such as the client's id.",
    )
    oidc_claim: str = Field(
        default="groups",
        min_length=1,
        description="Claim of a token with the groups of its bearer; densityd:fraud:write opens the"
        " project fraud with the scope write.",
    )
    trusted_proxies: Annotated[str | None, AfterValidator(_checked_networks)] = Field(
        default=None,
        description="Networks of authenticating proxies, such as 10.0.0.0/8, whose headers X-Forwarded-User"
        " and X-Forwarded-Groups are believed. Unset: none.",
    )
    root_path: Annotated[str | None, AfterValidator(_checked_root_path)] = Field(
        default=None,
        description="Path below which a proxy serves the service, such as /densityd. Unset: none.",
    )
    memory_bytes: int = Field(
        default=8 * _GIB,
        ge=512 * _MIB,
        description="Memory of an API process with the processes that it starts, in bytes: a quarter is for"
        " loaded models, a sixteenth for request bodies, a quarter for the parsers of uploads, a quarter"
        " for the check of an imported model, and an eighth is the largest model.",
    )
    model_cache_bytes: int = _part_of_memory(4)
    max_bodies_bytes: int = _part_of_memory(16)
    parse_memory_bytes: int = _part_of_memory(8)
    import_memory_bytes: int = _part_of_memory(4)
    max_model_bytes: int = _part_of_memory(8)
    database_pool: int = internal(8, ge=1, le=500)
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
    max_rows: int = internal(50_000_000, ge=2)
    max_columns: int = internal(4_096, ge=1, le=1_000_000)
    max_table_bytes: int = internal(4 * _GIB, ge=_KIB)
    parse_timeout_s: float = internal(600, gt=0, le=86_400)
    max_parsers: int = internal(2, ge=1, le=64)

    max_json_bytes: int = internal(4 * _MIB, ge=_KIB, le=_GIB)
    max_body_bytes: int = Field(
        default=64 * _MIB,
        ge=_KIB,
        description="Largest body of a scoring request in bytes, as sent and decompressed; JSON may have 4 MiB.",
    )
    max_score_rows: int = internal(1_000_000, ge=1)
    max_sample_rows: int = internal(100_000_000, ge=1)
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
    rate_burst_s: float = internal(2, gt=0, le=3_600)
    max_parameters: int = internal(50_000_000, ge=1)
    max_layers: int = internal(256, ge=1)
    max_training_memory_bytes: int = internal(4 * _GIB, ge=_MIB)
    max_result_bytes: int = internal(64 * _GIB, ge=_MIB)
    bulk_part_rows: int | None = internal(None, ge=1)

    max_open_requests: int = internal(256, ge=1, le=100_000)
    max_open_streams: int = internal(64, ge=1, le=100_000)
    max_open_uploads: int = internal(16, ge=1, le=100_000)

    ready_look_s: float = internal(15.0, ge=0.05, le=3_600)

    preload: Annotated[str | None, AfterValidator(_checked_preload)] = Field(
        default=None,
        description="Models that are loaded before `/readyz` is 200, with commas between them: "
        "references such as shuttle, shuttle@live or shuttle:3, those of another project as "
        "project/shuttle.",
    )
    stale_s: float = internal(300.0, ge=0, le=86_400)
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=3_600,
        description="Seconds between a signal to stop and the end of listening. Meanwhile "
        "`/readyz` is 503, requests are served, and connections close with their responses, "
        "so that a load balancer sends no more.",
    )
    drain_s: float = Field(
        default_factory=lambda given: _DRAIN_S[given["drain_delay_s"] > 0],
        exclude=True,
        ge=0,
        le=3_600,
    )

    api_processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Number of API processes on the port; each loads its own models.",
    )
    max_waiting: int = internal(512, ge=1, le=100_000)
    max_wait_s: float = internal(30.0, gt=0, le=3600)
    engine_stall_s: float = internal(60.0, ge=0.1, le=3600)
    inference_threads: int = internal(1, ge=1, le=256)

    @property
    def parser_limits(self) -> ParserLimits:
        """Return the limits of a process that reads a file."""
        return {"memory_bytes": self.parse_memory_bytes, "timeout_s": self.parse_timeout_s}
