"""Settings of the API process, read from the environment once at its entry."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

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


class EarlyAnswers(StrEnum):
    """Conditions under which the answer to a large body may begin before the body has ended."""

    NEVER = "never"
    ASKED = "asked"
    ALWAYS = "always"


_LOG_ALONE = "-"


def _checked_audit_dir(folder: str | None) -> str | None:
    if folder is not None and folder != _LOG_ALONE and not Path(folder).is_absolute():
        raise ValueError("the audit trail is an absolute path, such as /srv/densityd/audit, or -")
    return folder


class ApiSettings(StoreSettings):
    """Settings of the API: its address, and the limits of a request."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65_535, description="Port to listen on; 0: any.")
    allow_anonymous: bool = Field(
        default=False,
        description="Serve callers without an API key on an address that is not loopback, until a"
        " key is made.",
    )
    cors_origins: Annotated[str | None, AfterValidator(_checked_origins)] = Field(
        default=None,
        description="Sites whose pages may use the API, such as https://a.example,https://b.example."
        " Unset: none.",
    )

    audit_dir: Annotated[str | None, AfterValidator(_checked_audit_dir)] = Field(
        default=None,
        description="Absolute path of the folder of the audit trail; -: the log alone. Unset: audit"
        " in the data directory.",
    )

    max_upload_bytes: int = Field(
        default=2 * _GIB, ge=_KIB, description="Largest dataset file, as sent and unpacked."
    )
    max_rows: int = Field(default=50_000_000, ge=2, description="Most rows of a dataset.")
    max_columns: int = Field(
        default=4_096, ge=1, le=1_000_000, description="Most columns of a dataset."
    )
    max_table_bytes: int = Field(
        default=4 * _GIB,
        ge=_KIB,
        description="Largest dataset once it is parsed; largest answer to a scoring request.",
    )
    parse_memory_bytes: int = Field(
        default=_GIB,
        ge=64 * _MIB,
        description="Memory of the process that parses an upload; a file that needs more is refused.",
    )
    parse_timeout_s: float = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Longest time that parsing an upload, or checking an imported model, may take.",
    )
    max_parsers: int = Field(
        default=3,
        ge=1,
        le=64,
        description="Uploads that are parsed at once; others wait, in turn by project. A project has"
        " at most all but one.",
    )

    max_json_bytes: int = Field(
        default=4 * _MIB, ge=_KIB, le=_GIB, description="Largest JSON body, as sent and unpacked."
    )
    max_bodies_bytes: int = Field(
        default=256 * _MIB,
        ge=_KIB,
        description="Bodies of all callers that are kept in memory while they come; one project gets"
        " half of it at most.",
    )
    max_score_bytes: int = Field(
        default=2 * _GIB,
        ge=_KIB,
        description="Largest body of a scoring request in any format but JSON, unpacked.",
    )
    max_score_rows: int = Field(
        default=100_000_000, ge=1, description="Most rows of one scoring request."
    )
    max_sample_rows: int = Field(
        default=100_000_000, ge=1, description="Most samples of one sampling request."
    )
    max_queued_jobs: int = Field(
        default=1_000, ge=1, description="Most jobs of a project that wait at once."
    )
    rate_limit: float = Field(
        default=0,
        ge=0,
        description="Requests a second of each key that was made without a rate of its own; 0: any"
        " number.",
    )
    rate_burst_s: float = Field(
        default=2,
        gt=0,
        le=3_600,
        description="A key that was quiet may send the requests of so many seconds at once.",
    )
    max_parameters: int = Field(
        default=50_000_000, ge=1, description="Most parameters (weights) of a flow."
    )
    max_layers: int = Field(
        default=256, ge=1, description="Most hidden layers of all the networks of a flow."
    )
    max_training_memory_bytes: int = Field(
        default=4 * _GIB, ge=_MIB, description="Largest estimated memory of a training job."
    )
    max_model_bytes: int = Field(
        default=_GIB,
        ge=_MIB,
        description="Largest estimated memory of one loaded model while it answers; a flow that would"
        " take more is neither trained nor imported nor loaded.",
    )
    import_memory_bytes: int = Field(
        default=4 * _GIB,
        ge=256 * _MIB,
        description="Memory of the process that checks an imported model; there is one at a time.",
    )
    max_result_bytes: int = Field(
        default=64 * _GIB,
        ge=_MIB,
        description="Largest result of a bulk job, in bytes of its numbers; while it runs it takes"
        " twice that on the disk.",
    )

    body_timeout_s: float = Field(
        default=30,
        gt=0,
        le=3_600,
        description="Longest wait for the next piece of a body; a body must also keep up 1 KiB/s.",
    )
    header_timeout_s: float = Field(
        default=10,
        gt=0,
        le=600,
        description="Longest wait for the headers of a request, and for the next piece of a body"
        " that nobody needs any more.",
    )
    write_timeout_s: float = Field(
        default=30,
        gt=0,
        le=3_600,
        description="Longest time that a caller may take less than 1 KiB/s of an answer.",
    )
    early_answers: EarlyAnswers = Field(
        default=EarlyAnswers.ASKED,
        description="When the answer to a large body may begin before the body has ended: never,"
        " asked (by `Prefer: early-answer`) or always. Proxies such as nginx break such answers.",
    )
    max_connections: int = Field(
        default=4_000,
        ge=1,
        description="Connections at once. Beyond it, idle ones of whoever has most are closed; where"
        " there are none, more are answered 503. No more than the limit of open files leaves.",
    )
    max_open_requests: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Requests of a key that are served at once, while their bodies come and answers"
        " go too; more are answered 429. The keys of a project may have twice as many together, and"
        " a service without keys eight times as many.",
    )
    max_open_streams: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Event streams among them; of a project, and without keys, as above.",
    )
    max_open_uploads: int = Field(
        default=16,
        ge=1,
        le=100_000,
        description="Uploads and imports among them, from their first byte until they are stored.",
    )

    ready_look_s: float = Field(
        default=15.0,
        ge=0.05,
        le=3_600,
        description="Seconds from one look at database and store to the next; `/readyz` tells what"
        " the last one found. While something is amiss there is one each second.",
    )

    model_cache_bytes: int = Field(
        default=_GIB, ge=0, description="Memory that loaded models may take together."
    )
    api_processes: int = Field(
        default=1, ge=1, le=256, description="API processes on the port; each loads its own models."
    )
    max_waiting: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Scores and samples that may wait for the engine; more are answered 503.",
    )
    max_wait_s: float = Field(
        default=30.0, gt=0, le=3600, description="What waited longer is answered 503."
    )
    engine_stall_s: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="Scores and samples that stand still for so long make the process unready; after"
        " twice as long it ends, to be started again.",
    )
    inference_threads: int = Field(
        default=1, ge=1, le=256, description="Threads of the numerical library in this process."
    )

    @property
    def audit_folder(self) -> Path | None:
        """Return the folder of the audit trail; None: it is in the log alone."""
        if self.audit_dir == _LOG_ALONE:
            return None
        return self.data_dir / "audit" if self.audit_dir is None else Path(self.audit_dir)
