"""A database of SQLite that is opened on a disk without one free byte, a real one."""

import subprocess
import sys
from pathlib import Path

from tests.disks import Disks

_MAKE = """
import sys
from pathlib import Path
from models_store.database.ballast import Ballast
from models_store.database.database import migrate
migrate(f"sqlite:///{sys.argv[1]}/x.sqlite3")
Ballast(Path(sys.argv[1]), 2**21).restore()
"""
_OPEN = """
import sys
from models_store.database.database import Database
from models_store.errors import StorageFullError
try:
    Database(f"sqlite:///{sys.argv[1]}/x.sqlite3").check_revision()
except StorageFullError:
    print("full")
else:
    print("opened")
"""


def test_ballast_makes_room_for_the_index_of_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    disks = Disks({data: "24m"})

    def run(program: str) -> str:
        command = disks.on(sys.executable, "-P", "-c", program, str(data))
        run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
        return run.stdout.strip()

    run(_MAKE)
    ballast = disks.inside(data) / "ballast"
    assert ballast.stat().st_size == 2**21
    disks.fill(data)

    assert run(_OPEN) == "opened"
    assert ballast.stat().st_size == 2**20
    ballast.unlink()
    disks.inside(data).joinpath("filler").rename(disks.inside(data) / "filled")
    disks.fill(data)
    assert run(_OPEN) == "full"
    disks.close()
