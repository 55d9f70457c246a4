"""Audit of the locked packages for known vulnerabilities, by pip-audit.

A vulnerability fails the check, and so does a package that the service does not know, unless
audit.toml allows it for now. If the service cannot be reached, the check passes with a warning.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_FILES = ("dev.lock", "torch.txt")
_PIN = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9._-]*==[^\\]+", re.MULTILINE)
_UNREACHABLE = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|Max retries exceeded|Could not connect|timed out"
)
_SECONDS = 300


def main() -> int:
    """Audit the locks; return 0 if nothing is wrong, or the service could not be reached."""
    output, errors = _ask("".join(f"{pin}\n" for pin in pins()))
    allowed = tomllib.loads((_FOLDER / "audit.toml").read_text(encoding="utf-8"))["allowed"]
    faults, note = verdict(output, errors, allowed=allowed, today=datetime.now(UTC).date())
    sys.stdout.write("".join(f"{line}\n" for line in [*faults, note]))
    return int(bool(faults))


def pins() -> list[str]:
    """Return every pinned package, as `name==version` with its marker."""
    texts = [(_FOLDER / name).read_text(encoding="utf-8") for name in _FILES]
    return [pin.strip() for text in texts for pin in _PIN.findall(text)]


def verdict(
    output: str, errors: str, *, allowed: Sequence[dict[str, Any]], today: date
) -> tuple[list[str], str]:
    """Return the faults, and a line that summarises the audit.

    Args:
        output: Standard output of pip-audit: JSON, or nothing.
        errors: Standard error of pip-audit.
        allowed: Entries of audit.toml.
        today: Current date; entries that ended before it are ignored.
    """
    if not output.strip():
        if _UNREACHABLE.search(errors):
            return [], _unchecked("the service of known holes cannot be reached from here")
        return [errors.strip()[-2000:] or "pip-audit said nothing"], "pip-audit failed."
    packages = json.loads(output)["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):
        return [], _unchecked("the service of known holes answers nothing about any package")
    valid = {(entry["package"], entry.get("id")) for entry in allowed if entry["until"] >= today}
    faults = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in"
        f" {', '.join(hole['fix_versions']) or 'no release'}"
        for package in packages
        for hole in package.get("vulns", [])
        if not valid & {(package["name"], name) for name in (hole["id"], *hole["aliases"])}
    ]
    faults += [
        f"{name}: the service knows nothing about it"
        for name in unknown
        if (name, None) not in valid
    ]
    checked = len(packages) - len(unknown)
    return faults, f"Audited {checked} of {len(packages)} locked packages for known holes."


def _unchecked(reason: str) -> str:
    return f"NOT AUDITED: {reason}. The locked packages were not checked for known holes."


def _ask(requirements: str) -> tuple[str, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", file.name, "--no-deps"]
        command += ["--disable-pip", "--progress-spinner=off", "--format=json"]
        try:
            done = subprocess.run(  # noqa: S603  our own command
                command, capture_output=True, text=True, check=False, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            return "", f"pip-audit timed out after {_SECONDS} s"
    return done.stdout, done.stderr


if __name__ == "__main__":
    sys.exit(main())
