"""Settings that every process of the service shares, read from the environment once at its entry."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from models_store.broker import check_broker_url
from models_store.files.store_address import StoreAddress, refuse_store_url


def _checked_database_url(url: str | None) -> str | None:
    from models_store.database.engines import parse_url  # noqa: PLC0415 - slow, and few set a URL

    if url is not None:
        parse_url(url)
    return url


def _checked_broker_url(url: str | None) -> str | None:
    if url is not None:
        check_broker_url(url)
    return url


def _checked_store_url(url: str | None) -> str | None:
    """Refuse what would silently become a folder below the current one."""
    if url is not None and (refusal := refuse_store_url(url)) is not None:
        raise ValueError(refusal)
    return url


def _absolute(folder: Path | None) -> Path | None:
    return None if folder is None else folder.absolute()


def _checked_endpoint(url: str | None) -> str | None:
    if url is not None and (not url.startswith(("http://", "https://")) or "@" in url):
        raise ValueError("the endpoint is http:// or https:// with a host, without credentials")
    return url


def first_error(error: ValidationError) -> str:
    """Return one line that names the first variable with a bad value; never the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    return f"DENSITYD_{name}: {first['msg'].removeprefix('Value error, ')}"


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise ValueError("the file cannot be read") from None


class _FileSource(PydanticBaseSettingsSource):
    """Values from files, such as the secrets that an orchestrator mounts."""

    def get_field_value(
        self,
        field: FieldInfo,  # noqa: ARG002 - of the library's interface
        field_name: str,
    ) -> tuple[Any, str, bool]:
        """Return nothing: all fields are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of all settings for which a variable with _FILE names a file.

        Raises:
            ValidationError: A file cannot be read.
        """
        named = {
            f"{name}_file": path
            for name in self.settings_cls.model_fields
            if (path := os.environ.get(f"DENSITYD_{name.upper()}_FILE"))
        }
        read = TypeAdapter(dict[str, Annotated[str, AfterValidator(_read_text)]])
        found = read.validate_python(named)
        return {name.removesuffix("_file"): text for name, text in found.items() if text}


class StoreSettings(BaseSettings):
    """Settings of the database, the files and the broker, which each process extends.

    Every field is read from the environment variable of its name in capitals with the prefix
    ``DENSITYD_``; an empty variable counts as unset.
    """

    model_config = SettingsConfigDict(
        env_prefix="DENSITYD_", frozen=True, env_ignore_empty=True, extra="ignore"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what has no variable of its own from the file that its variable with _FILE names."""
        files = _FileSource(settings_cls)
        return init_settings, env_settings, dotenv_settings, file_secret_settings, files

    data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default=Path("data"),
        description="Folder of the embedded database, the blob store and the private Redis.",
    )
    database_url: Annotated[str | None, AfterValidator(_checked_database_url)] = Field(
        default=None,
        description="SQLAlchemy URL, such as postgresql+psycopg://user:password@host/densityd."
        " Unset: SQLite in the data directory.",
    )
    broker_url: Annotated[str | None, AfterValidator(_checked_broker_url)] = Field(
        default=None,
        description="Redis URL of the job queue, such as redis://host:6379/0, or"
        " sentinel://a:26379,b:26379/0?master_name=NAME. Unset: the private Redis of the data"
        " directory.",
    )
    store_url: Annotated[str | None, AfterValidator(_checked_store_url)] = Field(
        default=None,
        description="Blob store, shared by every process: the absolute path of a folder, or s3://, gs:// or"
        " az:// with a bucket and a prefix. Unset: blobs/ in the data directory.",
    )
    store_endpoint: Annotated[str | None, AfterValidator(_checked_endpoint)] = Field(
        default=None,
        description="Address of the server of an object store, such as http://minio:9000. Unset: that of"
        " the provider.",
    )
    store_cache_dir: Annotated[Path | None, AfterValidator(_absolute)] = Field(
        default=None,
        description="Folder for copies of what lies in object storage, which the processes of a machine"
        " share. Unset: store-cache/ in the data directory.",
    )
    store_cache_bytes: int = Field(
        default=10 * 2**30,
        ge=2**20,
        description="Bound of these copies in bytes; those that were not used for the longest time go.",
    )
    max_project_bytes: int = Field(
        default=100 * 2**30,
        ge=1,
        description="Storage quota of a project in bytes: datasets, models, checkpoints, results "
        "of bulk jobs, and the rows that describe them. An unfinished job counts with"
        " the largest size that its files may reach.",
    )
    reserve_bytes: int = Field(
        default=4 * 2**30,
        ge=0,
        description="Disk space that projects leave to each other where the store is a folder, a tenth of the"
        " disk at most: the more of it the more they store, half of it where they store as much, nine tenths"
        " where they store nine times as much. 0: none.",
    )
    first_key_file: Path | None = Field(
        default=None,
        description="File with an API key that is made at the start, with the scope admin of the project"
        " default, if no key was ever made.",
    )
    webhook_private_addresses: bool = Field(
        default=False,
        description="True: webhooks may have http:// URLs and addresses of private networks and of"
        " this machine, to which whoever may create webhooks can then send requests.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level of log messages."
    )

    @property
    def resolved_database_url(self) -> str:
        """The database that is used."""
        if self.database_url is not None:
            return self.database_url
        return f"sqlite:///{quote(str(self.data_dir / 'densityd.sqlite3'))}"

    @property
    def redis_socket(self) -> Path:
        """The Unix socket of the private Redis."""
        return self.data_dir / "redis" / "redis.sock"

    @property
    def resolved_broker_url(self) -> str:
        """The broker that is used, as redis-py spells it."""
        if self.broker_url is not None:
            return self.broker_url
        return f"unix://{quote(str(self.redis_socket))}"

    @property
    def store_address(self) -> StoreAddress:
        """The address of the blob store."""
        return StoreAddress(
            url=self.store_url or str(self.data_dir / "blobs"),
            endpoint=self.store_endpoint,
            cache_dir=str(self.store_cache_dir or self.data_dir / "store-cache"),
            cache_bytes=self.store_cache_bytes,
        )

    @property
    def blob_root(self) -> Path:
        """The folder of the blob store on this machine: of its files, or of copies of them."""
        address = self.store_address
        return Path(address.cache_dir if address.is_remote else address.url)
