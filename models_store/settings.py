"""Settings that every process of the service shares, read from the environment once at its entry."""

import os
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from models_store.broker import checked_broker_url
from models_store.files.store_address import StoreAddress, checked_store_url


def _checked_database_url(url: str) -> str:
    from models_store.database.engines import parse_url  # noqa: PLC0415 - slow, and few set a URL

    parse_url(url)
    return url


def _checked_endpoint(url: str) -> str:
    if not url.startswith(("http://", "https://")) or "@" in url:
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


_PREFIX = "DENSITYD_"
_TESTS = "TEST_"
_OF_FILE = "_FILE"
# Named, not imported: they stand above this package.
_OF_PROCESSES = ("app.settings:ApiSettings", "workers.settings:WorkerSettings")
_OF_CLIENT = ("URL", "API_KEY", "TO_API_KEY")


def internal(default: Any, **constraints: Any) -> Any:  # noqa: ANN401 - as `Field`
    """Return a field that is no setting: only tests give it another value, by ``DENSITYD_TEST_NAME`` or the call.

    Args:
        constraints: Constraints on the value, as of `Field`.
    """
    return Field(default=default, exclude=True, **constraints)


@cache
def variables() -> frozenset[str]:
    """Return the names after ``DENSITYD_`` that mean something: to the processes of a service, and to its client.

    All of them share one environment, so each knows the settings of the others.
    """
    names = set(_OF_CLIENT)
    for process in _OF_PROCESSES:
        fields = resolve_name(process).model_fields
        names |= {name.upper() for name, field in fields.items() if not field.exclude}
    return frozenset(names)


def _nearest(name: str) -> str | None:
    """Return the known name that is nearest to one that is not; None if it is known."""
    known = variables()
    if name in known or name.removesuffix(_OF_FILE) in known or name.startswith(_TESTS):
        return None
    return _PREFIX + get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]


def _known(name: str) -> str:
    near = _nearest(name)
    if near is not None:
        raise ValueError(f"there is no such setting; the nearest is {near}")
    return name


def unknown_settings() -> dict[str, str]:
    """Return the variables of the environment that are no settings, each with the nearest one that is."""
    ours = sorted(name for name in os.environ if name.startswith(_PREFIX))
    near = {name: _nearest(name.removeprefix(_PREFIX)) for name in ours}
    return {name: setting for name, setting in near.items() if setting is not None}


class _Variables(PydanticBaseSettingsSource):
    """Values of variables, and of files that they name, such as the secrets that an orchestrator mounts."""

    def get_field_value(
        self,
        field: FieldInfo,  # noqa: ARG002 - of the library's interface
        field_name: str,
    ) -> tuple[Any, str, bool]:
        """Return nothing: all fields are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the values of all settings that are set.

        Raises:
            ValidationError: A variable is none that is known, or a file cannot be read.
        """
        given = {
            name.removeprefix(_PREFIX): text
            for name, text in os.environ.items()
            if name.startswith(_PREFIX)
        }
        names = TypeAdapter(dict[str, Annotated[str, AfterValidator(_known)]])
        names.validate_python({name.lower(): name for name in given})
        fields = self.settings_cls.model_fields
        named = {
            name.lower(): path for name, path in given.items() if name.endswith(_OF_FILE) and path
        }
        files = {name: path for name, path in named.items() if name.removesuffix("_file") in fields}
        read = TypeAdapter(dict[str, Annotated[str, AfterValidator(_read_text)]])
        found = read.validate_python(files)
        values = {name.removesuffix("_file"): text for name, text in found.items()}
        for name, field in fields.items():
            variable = name.upper() if not field.exclude else _TESTS + name.upper()
            if given.get(variable):
                values[name] = given[variable]
        return {name: text for name, text in values.items() if text}


class StoreSettings(BaseSettings):
    """Settings of the database, the files and the broker, which each process extends.

    Each field but the internal ones is read from the environment variable of its name in capitals with
    the prefix ``DENSITYD_``; an empty variable counts as unset, and one that is not known is an error.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - those of the library
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read variables, and the files that variables with _FILE at their ends name."""
        return init_settings, _Variables(settings_cls)

    data_dir: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default=Path("data"),
        description="Folder of the embedded database, the blob store and the private Redis.",
    )
    database_url: Annotated[str, AfterValidator(_checked_database_url)] | None = Field(
        default=None,
        description="SQLAlchemy URL, such as postgresql+psycopg://user:password@host/densityd."
        " Unset: SQLite in the data directory.",
    )
    broker_url: Annotated[str, AfterValidator(checked_broker_url)] | None = Field(
        default=None,
        description="Redis URL of the job queue, such as redis://host:6379/0, or"
        " sentinel://a:26379,b:26379/0?master_name=NAME. Unset: the private Redis of the data"
        " directory.",
    )
    store_url: Annotated[str, AfterValidator(checked_store_url)] | None = Field(
        default=None,
        description="Blob store, shared by every process: the absolute path of a folder, or s3://, gs:// or"
        " az:// with a bucket and a prefix. Unset: blobs/ in the data directory.",
    )
    store_endpoint: Annotated[str, AfterValidator(_checked_endpoint)] | None = Field(
        default=None,
        description="Address of the server of an object store, such as http://minio:9000. Unset: that of"
        " the provider.",
    )
    store_cache_bytes: int = internal(10 * 2**30, ge=2**20)
    max_project_bytes: int = Field(
        default=100 * 2**30,
        ge=1,
        description="Storage quota of a project in bytes of files: datasets, models, checkpoints and"
        " results of bulk jobs.",
    )
    reserve_bytes: int = internal(2**30, ge=0)
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
            cache_dir=str(self.data_dir / "store-cache"),
            cache_bytes=self.store_cache_bytes,
            # Beside a bucket the disk has only files on their way.
            leave_bytes=0 if self.store_url and "://" in self.store_url else self.reserve_bytes,
        )

    @property
    def blob_root(self) -> Path:
        """The folder of the blob store on this machine: of its files, or of copies of them."""
        address = self.store_address
        return Path(address.cache_dir if address.is_remote else address.url)
