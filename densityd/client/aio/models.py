"""Models of the service, their versions and aliases."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Unpack

from densityd.client.call import (
    LONG_S,
    Call,
    Response,
    Retry,
    build_change,
    build_deletion,
    build_path,
    encode_json,
    ignore,
    new_key,
    parse_json,
    read_content,
)
from densityd.client.errors import ClientError
from densityd.client.filters import (
    NamedFilters,
    UnusualFilters,
    VersionFilters,
    format_filters,
)
from densityd.client.options import Labels
from densityd.client.record import Page
from densityd.client.records import (
    Alias,
    AliasChange,
    Job,
    Model,
    Monitoring,
    Unusual,
    Version,
    VersionComparison,
    VersionSummary,
)
from densityd.client.signatures import shows_options
from densityd.client.wire.files import read_file

if TYPE_CHECKING:  # httpx takes a while
    from densityd.client.aio.transport import AsyncTransport

_PATH = "/v1/models"
_CHECKPOINT = "application/octet-stream"
_EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class AsyncModels:
    """Trained models: their versions, aliases and weights."""

    def __init__(self, transport: "AsyncTransport") -> None:
        self._transport = transport

    @shows_options(NamedFilters)
    def list(self, **filters: Unpack[NamedFilters]) -> AsyncIterator[Model]:
        """Return an iterator over models, newest first; pages are fetched as needed."""
        return self._transport.iter_items(_PATH, Page[Model].of, format_filters(filters))

    async def get(self, name: str) -> Model:
        """Return a model: its newest version and its aliases."""
        return await self._transport.fetch(Model, _PATH, name)

    @shows_options(Labels)
    async def update(
        self, name: str, *, etag: str | None = None, **labels: Unpack[Labels]
    ) -> Model:
        """Describe and tag a model.

        Args:
            etag: Etag that the model must still have; None to change it in any case.
            **labels: New description and tags; what is left out stays.
        """
        path = build_path(_PATH, name)
        return await self._transport.send(build_change(path, Model.of, labels, etag))

    @shows_options(VersionFilters)
    def versions(
        self, name: str, **filters: Unpack[VersionFilters]
    ) -> AsyncIterator[VersionSummary]:
        """Return an iterator over versions of a model, newest first.

        `include=["flow"]` adds their specs, so that versions are compared without a request for each.
        """
        path = build_path(_PATH, name, "versions")
        return self._transport.iter_items(path, Page[VersionSummary].of, format_filters(filters))

    @shows_options(Labels)
    async def update_version(
        self, name: str, number: int, *, etag: str | None = None, **labels: Unpack[Labels]
    ) -> Version:
        """Describe and tag a version; arguments as for `update`."""
        path = build_path(_PATH, name, "versions", number)
        return await self._transport.send(build_change(path, Version.of, labels, etag))

    async def find(self, ref: str) -> Version:
        """Return the version that a reference stands for now.

        Args:
            ref: `name:version`, `name@alias`, or `name`: its alias `production` if set, else the newest version.

        Raises:
            ClientError: What follows the colon is no number.
            ApiError: There is no such model, version or alias.
        """
        name, colon, number = ref.partition(":")
        if colon:
            if not (number.isascii() and number.isdecimal()):
                raise ClientError(f"{ref}: a version is a number, as in {name}:1")
            return await self.version(name, int(number))
        name, at, label = ref.partition("@")
        if at:
            return await self.version(name, (await self.alias(name, label)).version)
        model = await self.get(name)
        return await self.version(name, model.aliases.get("production", model.latest_version))

    async def version(self, name: str, number: int) -> Version:
        """Return a version of a model."""
        return await self._transport.fetch(Version, _PATH, name, "versions", number)

    async def plot(
        self,
        name: str,
        version: int,
        kind: str,
        *,
        format: Literal["png", "svg"] = "png",  # noqa: A002 - the word for it
        theme: Literal["light", "dark"] = "light",
    ) -> bytes:
        """Return a plot of a version as an image file: its training, or what it has learnt.

        Args:
            theme: Colours, of text on white or of text on black.

        Raises:
            ApiError: The version has no such plot.
        """
        call = Call(
            "GET",
            build_path(_PATH, name, "versions", version, "plots", kind),
            read_content,
            params={"format": format, "theme": theme},
            headers={"Accept": "image/svg+xml" if format == "svg" else "image/png"},
            read_timeout_s=LONG_S,  # the service draws one at a time
        )
        return await self._transport.send(call)

    async def upload(self, name: str, path: Path) -> Version:
        """Import a file that `export` or `download` wrote, as the next version of a model.

        Args:
            name: Name of the model, which is created with its first version.

        Raises:
            ApiError: The file is not a usable model.
            OSError: The file cannot be read.
        """
        call = Call(
            "POST",
            build_path(_PATH, name, "versions"),
            Version.of,
            body=read_file(path, _CHECKPOINT),
            # Every attempt has the same key, so that there is one version.
            headers={"Idempotency-Key": new_key()},
            read_timeout_s=LONG_S,
        )
        return await self._transport.send(call)

    async def alias(self, name: str, alias: str) -> Alias:
        """Return an alias: its version, and the etag that makes a later move conditional."""
        path = build_path(_PATH, name, "aliases", alias)
        return await self._transport.send(Call("GET", path, _read_alias))

    async def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        reason: str | None = None,
        etag: str | None = None,
    ) -> Alias:
        """Point an alias at a version.

        Args:
            reason: Reason for the move, which stays in the history.
            etag: Etag that the alias must still have; None to move it in any case.
        """
        call = Call(
            "PUT",
            build_path(_PATH, name, "aliases", alias),
            _read_alias,
            headers={} if etag is None else {"If-Match": etag},
            body=encode_json({"version": version} | ({} if reason is None else {"reason": reason})),
            # To a second attempt the move by the first would look like somebody else's.
            retry=Retry.ALWAYS if etag is None else Retry.REFUSED,
        )
        return await self._transport.send(call)

    def alias_changes(self, name: str) -> AsyncIterator[AliasChange]:
        """Return an iterator over the moves and deletions of the aliases of a model, newest first."""
        path = build_path(_PATH, name, "history")
        return self._transport.iter_items(path, Page[AliasChange].of)

    async def monitoring(
        self,
        ref: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        bucket: Literal["hour", "day"] = "day",
    ) -> Monitoring:
        """Return the counts of the rows that a version scored, and whether they have drifted.

        Args:
            since: Time in the first hour or day; None for seven days before `until`.
            until: Time before which the last one begins; None for now.

        Raises:
            ApiError: The version has no held-out rows (`score-unavailable`).
        """
        times = {"since": since, "until": until}
        params = {name: time.isoformat() for name, time in times.items() if time is not None}
        call = Call(
            "GET",
            build_path(_PATH, ref, "monitoring"),
            Monitoring.of,
            params={**params, "bucket": bucket},
        )
        return await self._transport.send(call)

    async def retrain(self, ref: str, dataset_id: str) -> Job:
        """Start the training that made a version again, on another dataset; return its job.

        Raises:
            ApiError: The request that made the version is not known (`retrain-unavailable`).
        """
        call = Call(
            "POST",
            build_path(_PATH, ref, "retrain"),
            Job.of,
            # Every attempt has the same key, so that there is one job.
            headers={"Idempotency-Key": new_key()},
            body=encode_json({"dataset_id": dataset_id}),
        )
        return await self._transport.send(call)

    async def delete_alias(self, name: str, alias: str) -> None:
        """Delete an alias; the version stays."""
        await self._transport.send(build_deletion(_PATH, name, "aliases", alias))

    async def delete_version(self, name: str, version: int) -> None:
        """Delete a version that no alias points at and no unfinished job uses.

        Args:
            version: Number of the version, which is never used again.
        """
        await self._transport.send(build_deletion(_PATH, name, "versions", version))

    async def delete(self, name: str) -> None:
        """Delete all versions of a model that has no alias and that no unfinished job uses."""
        await self._transport.send(build_deletion(_PATH, name))

    @shows_options(UnusualFilters)
    async def unusual(self, ref: str, **filters: Unpack[UnusualFilters]) -> Unusual:
        """Return the least likely rows of the table that a version was trained on, the least likely first.

        Each has its cells, its rank among held-out rows, and the cells that make it unlikely with what would be
        usual there. At most 100 at a time; `download_unusual` gives up to 1,000 as a file.

        Raises:
            ApiError: There are none (`unusual-unavailable`, `unusual-not-scored`).
        """
        path = build_path(_PATH, ref, "unusual")
        call = Call("GET", path, Unusual.of, params=format_filters(filters), read_timeout_s=LONG_S)
        return await self._transport.send(call)

    @shows_options(UnusualFilters)
    async def download_unusual(
        self, ref: str, target: Path | BinaryIO, **filters: Unpack[UnusualFilters]
    ) -> None:
        """Download unusual rows for spreadsheets: an Excel file where the path ends so, else CSV.

        Args:
            target: File to write; a path has all of it or is not written.
            **filters: Which of them, as of `unusual`.
        """
        is_excel = isinstance(target, Path) and target.suffix.lower() == ".xlsx"
        call = Call(
            "GET",
            build_path(_PATH, ref, "unusual"),
            ignore,
            params=format_filters(filters),
            headers={"Accept": _EXCEL if is_excel else "text/csv"},
            read_timeout_s=LONG_S,
        )
        await self._transport.save(call, target)

    async def review(
        self, name: str, digest: str, review: Literal["confirmed", "not_unusual"] | None
    ) -> None:
        """Record what a person found about an unusual row; later versions and scorings show it, too.

        Args:
            digest: Digest of the row, as `unusual` gives it.
            review: Finding; None forgets it.
        """
        if review is None:
            return await self._transport.send(build_deletion(_PATH, name, "reviews", digest))
        path, body = build_path(_PATH, name, "reviews", digest), encode_json({"review": review})
        return await self._transport.send(Call("PUT", path, ignore, body=body, retry=Retry.ALWAYS))

    async def compare(
        self, ref: str, other: str, *, dataset_id: str | None = None
    ) -> VersionComparison:
        """Return which of two versions gives the same rows the higher density, and how surely.

        Args:
            dataset_id: Dataset whose rows they are compared on; None for rows that neither was trained on.

        Raises:
            ApiError: They cannot be compared (`compare-unavailable`).
        """
        call = Call(
            "GET",
            build_path(_PATH, ref, "compare"),
            VersionComparison.of,
            params={"with": other, "dataset_id": dataset_id},
            read_timeout_s=LONG_S,
        )
        return await self._transport.send(call)

    async def export(self, name: str, version: int, target: Path | BinaryIO) -> None:
        """Download a version as a file that `upload` restores, with metrics, calibration and labels.

        Args:
            target: File to write; a path has all of it or is not written.
        """
        path = build_path(_PATH, name, "versions", version, "export")
        await self._transport.save(Call("GET", path, ignore, read_timeout_s=LONG_S), target)

    async def export_onnx(self, name: str, version: int, target: Path | BinaryIO) -> None:
        """Download the log density of a version as an ONNX model: raw rows in, nats out.

        Args:
            target: File to write; a path has all of it or is not written.

        Raises:
            ApiError: The density has no form in ONNX.
        """
        path = build_path(_PATH, name, "versions", version, "onnx")
        await self._transport.save(Call("GET", path, ignore, read_timeout_s=LONG_S), target)

    async def download(self, name: str, version: int, target: Path | BinaryIO) -> None:
        """Download the weights of a version, a safetensors file; a path has all or is not written.

        Args:
            target: File to write.
        """
        path = build_path(_PATH, name, "versions", version, "checkpoint")
        # The service checks the hash before it responds.
        await self._transport.save(Call("GET", path, ignore, read_timeout_s=LONG_S), target)


def _read_alias(response: Response) -> Alias:
    return Alias.read({**parse_json(response.content), "etag": response.headers.get("etag")})
