"""Small file systems of the tests' own: they run full, and become read-only, for real.

They lie in memory, in a mount namespace that only the processes started on them see. That takes no
root where the system lets users make namespaces; they are gone with the last of those processes.
"""

import subprocess
from pathlib import Path

import pytest

_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")
_MOUNT = """
while [ $# -gt 0 ]; do mount -t tmpfs -o "size=$2,mode=0700" disk "$1" || exit; shift 2; done
echo mounted && exec cat
"""


class Disks:
    """Empty file systems on folders.

    Args:
        sizes: how much each folder will hold, such as ``4m``; the folders are made.
    """

    def __init__(self, sizes: dict[Path, str]) -> None:
        for folder in sizes:
            folder.mkdir(parents=True)
        pairs = [part for folder, size in sizes.items() for part in (str(folder), size)]
        self._holder = subprocess.Popen(  # noqa: S603 - a command of our own
            [*_UNSHARE, "sh", "-c", _MOUNT, "sh", *pairs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            told = self._holder.communicate()[1].decode(errors="replace").strip()
            pytest.skip(f"this system lets nobody make a small disk: {told}")

    def inside(self, path: Path) -> Path:
        """A path on the disks, for who is not on them; links in it lead elsewhere."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def on(self, *command: str) -> list[str]:
        """A command to be run on the disks; it keeps its process id."""
        pid = str(self._holder.pid)
        return ["nsenter", "--target", pid, "--user", "--preserve-credentials", "--mount", *command]

    def fill(self, folder: Path) -> Path:
        """Take all space that is left on a disk; the file that does."""
        filler = self.inside(folder) / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (2**16, 1):
                try:
                    while file.write(b"x" * size):
                        pass
                except OSError:
                    continue
        return filler

    def remount(self, folder: Path, mode: str) -> None:
        """Make a disk read-only, ``ro``, or writable again, ``rw``."""
        command = self.on("mount", "-o", f"remount,{mode}", str(folder))
        subprocess.run(command, check=True)  # noqa: S603 - a command of our own

    def close(self) -> None:
        """Let them go, with the last process on them."""
        self._holder.communicate()
