"""Addresses of blob stores."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

REMOTE_SCHEMES = ("s3", "gs", "az")
CREDENTIAL_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_")
"""Beginnings of the variables of the environment from which a bucket takes its credentials."""


class StoreAddress(BaseModel):
    """Address of a blob store.

    Attributes:
        url: Absolute path of a folder, or s3://, gs:// or az:// with a bucket and a prefix.
        endpoint: Address of the server of a bucket; None: that of the provider.
        cache_dir: Folder on this machine for what is read from a bucket and written to it.
        cache_bytes: Bound of the files in that folder.
        leave_bytes: Bytes that stay free of the disk of a folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    endpoint: str | None = None
    cache_dir: str = ""
    cache_bytes: int = 0
    leave_bytes: int = 0

    @property
    def is_remote(self) -> bool:
        """True for a bucket."""
        return "://" in self.url


def checked_store_url(url: str) -> str:
    """Return the URL of a store; refuse what would silently become a folder below the current one.

    Raises:
        ValueError: It names no store; the message has no part of it but the scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if not Path(url).is_absolute():
            raise ValueError("the store is an absolute path, such as /srv/densityd/blobs")
        return url
    if scheme not in REMOTE_SCHEMES:
        raise ValueError(
            f"{scheme}:// is no store of this version; give s3://, gs:// or az:// with a bucket, or"
            " the absolute path of a folder that all processes share"
        )
    if not rest.partition("/")[0] or any(mark in rest for mark in "@?#"):
        raise ValueError(
            f"a store in object storage is {scheme}://BUCKET or {scheme}://BUCKET/PREFIX;"
            " credentials are variables of the environment"
        )
    return url
