"""Fuzz the readers of strangers' bytes, guided by the code that is reached (libFuzzer)."""

import argparse
import contextlib
import io
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

_INSTRUMENTED = ["app", "flows.variational.formula", "models_store", "python_multipart", "tables"]

# It names each module as it comes.
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=_INSTRUMENTED):
    from tests.fuzz.targets import TARGETS, Target

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  only the speed depends on it
_MAX_BYTES = 4096
_MEMORY_MIB = 4096
_ONE_INPUT_S = 20


def main() -> None:
    """Run the named targets one after the other, or all; exit with 1 if one found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument(
        "--folder", type=Path, default=Path("data/fuzz"), help="of what was found, to continue from"
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in TARGETS:
            parser.error(f"there is no target {name!r}, only {', '.join(TARGETS)}")
    if len(options.names) == 1:
        fuzz(TARGETS[options.names[0]], options.folder / options.names[0], options.seconds)
    sys.exit(max(run(name, options) for name in options.names or TARGETS))


def run(name: str, options: argparse.Namespace) -> int:
    """Fuzz one target in a process of its own, which libFuzzer ends; 1 if it found something."""
    command = [sys.executable, "-m", "tests.fuzz", name, f"--seconds={options.seconds}"]
    command.append(f"--folder={options.folder}")
    print(f"{name}:", flush=True)
    return int(subprocess.run(command, check=False).returncode != 0)  # noqa: S603  our own


def fuzz(target: Target, folder: Path, seconds: int) -> None:
    """Fuzz one target; never returns."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    atheris.Setup(
        [
            sys.argv[0],
            str(corpus),
            f"-dict={words}",
            f"-artifact_prefix={folder}/",
            f"-max_total_time={seconds}",
            f"-max_len={_MAX_BYTES}",
            f"-rss_limit_mb={_MEMORY_MIB}",
            f"-timeout={_ONE_INPUT_S}",
            "-detect_leaks=0",
            "-print_final_stats=1",
            "-verbosity=0",
        ],
        target.check,
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    logging.disable()  # of what libraries say about every bad byte
    if _IN_MEMORY.is_dir():
        tempfile.tempdir = str(_IN_MEMORY)
    main()
