"""Generate the synchronous client from the asynchronous one: ``python tools/sync_client.py``.

Each module of `densityd/client/aio` gives the one of its name in `densityd/client/sync`. With
`--check` nothing is written, and the exit status says if the modules are current.
"""

import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_CLIENT = _ROOT / "densityd" / "client"
_HEADER = "# Generated from densityd/client/aio/{} by tools/sync_client.py; do not edit.\n"
_REPLACEMENTS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\bto_thread\.run_sync\((\S+), ", r"\1("),
        (r"from anyio import to_thread\n", ""),
        (r"\banyio\b", "time"),
        (r"\b(async|await) ", ""),
        (r"Tasks of asyncio or trio", "Threads"),
        (r"\bAwaitable\[(\w+)\]", r"\1"),
        (r"\bAwaitable, ", ""),
        (r"\bAsyncIterator, (.*)\bIterator\b", r"\1Iterator"),
        (r"\bAsync(?=[A-Z])", ""),
        (r"\basynccontextmanager\b", "contextmanager"),
        (r"\b__a(enter|exit)__", r"__\1__"),
        (r"\.a(close|read|iter_bytes)\(", r".\1("),
        (r"\bdensityd\.client\.aio\b", "densityd.client.sync"),
    ]
]
_STYLE = ["--fix", "--unsafe-fixes", "--quiet", "--select=C416,I,SIM117,UP028"]


def main() -> None:
    """Write each module of the synchronous client; with --check, exit with 1 if one is stale."""
    sources = sorted((_CLIENT / "aio").glob("[!_]*.py"))
    extra = {path.name for path in (_CLIENT / "sync").glob("[!_]*.py")}
    if extra := extra - {source.name for source in sources}:
        sys.exit(f"without a source in densityd/client/aio: {extra}")
    for source in sources:
        target = _CLIENT / "sync" / source.name
        text = _HEADER.format(source.name) + _convert(source.read_text("utf-8"))
        if "--check" not in sys.argv:
            target.write_text(text, "utf-8")
        elif target.read_text("utf-8") != text:
            sys.exit(f"{target} is stale: run python tools/sync_client.py")


def _convert(text: str) -> str:
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return _run_ruff(["format"], _run_ruff(["check", *_STYLE], text))


def _run_ruff(arguments: list[str], text: str) -> str:
    command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename=client.py", "-"]
    return subprocess.run(  # noqa: S603 - our own interpreter
        command, input=text, stdout=subprocess.PIPE, check=True, encoding="utf-8", cwd=_ROOT
    ).stdout


if __name__ == "__main__":
    main()
