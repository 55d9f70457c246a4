"""Signatures of exported files: HMAC-SHA256 under a key that two services share.

The signature stands in the metadata of the file itself, as hexadecimal digits. It is computed over all
bytes of the file with zeros in the place of these digits, so that nothing else can be changed.
"""

import hashlib
import hmac
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open

from models_store.errors import ModelFileError, SignatureError
from models_store.files.model_files import check_header

SIGNATURE_KEY = "densityd.signature"
UNSIGNED = "0" * 2 * hashlib.sha256().digest_size
"""Digits in the place of a signature."""

_LENGTH_BYTES = 8


def signed(head: bytes, rest: BinaryIO, key: str) -> bytes:
    """Return the first bytes of a file with its signature in the place of `UNSIGNED`.

    Args:
        head: First bytes, whose metadata have `UNSIGNED` under `SIGNATURE_KEY`.
        rest: Remaining bytes, read to their end.
        key: Key of the signature.
    """
    return head.replace(_entry(UNSIGNED), _entry(_digest(head, rest, key)), 1)


def check_signature(path: Path, key: str | None, *, required: bool) -> None:
    """Check the signature of a file, if there is a key to check it with.

    Args:
        path: Safetensors file.
        key: Key of the signature; None: signatures are not checked.
        required: True if a file without a signature is refused.

    Raises:
        ModelFileError: It is no safetensors file.
        SignatureError: The signature is wrong, or missing where it is required.
    """
    if key is None:
        return
    length = check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            given = (file.metadata() or {}).get(SIGNATURE_KEY)
    except (SafetensorError, OSError) as error:
        raise ModelFileError("The file is not a whole safetensors file.") from error
    if given is None:
        if required:
            raise SignatureError("The file has no signature, which this service requires.")
        return
    with path.open("rb") as stored:
        head = stored.read(_LENGTH_BYTES + length)
        is_one = len(given) == len(UNSIGNED) and head.count(_entry(given)) == 1
        unsigned = head.replace(_entry(given), _entry(UNSIGNED))
        expected = _digest(unsigned, stored, key) if is_one else ""
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise SignatureError(
            "The signature is not that of the file under this service's DENSITYD_EXPORT_KEY."
        )


def _entry(digits: str) -> bytes:
    """Return the entry of a signature in a header; quotes inside of other texts are escaped."""
    return f'"{SIGNATURE_KEY}":"{digits}"'.encode()


def _digest(head: bytes, rest: BinaryIO, key: str) -> str:
    code = hmac.new(key.encode(), head, hashlib.sha256)
    while chunk := rest.read(1 << 20):
        code.update(chunk)
    return code.hexdigest()
