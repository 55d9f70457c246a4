import os
import subprocess
import sys

import pytest

ASK = (
    "import resource, sys; from app.server.limits import connections_that_fit;"
    "resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:3])));"
    "print(connections_that_fit(int(sys.argv[3])), *resource.getrlimit(resource.RLIMIT_NOFILE))"
)

# Of small objects one in a thousand stays: some in each megabyte.
HOLES = """
from app.__main__ import allocate_by_the_c_library
allocate_by_the_c_library()
from app.server.limits import resident_bytes, return_memory
before = resident_bytes()
objects = [bytes(100 + place % 200) for place in range(200_000)]
kept = objects[::1000]
full = resident_bytes()
del objects
return_memory()
print(full - before, full - resident_bytes())
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (1024, 8192, 2000, "2000 7256 8192"),
        (256, 1024, 2000, "219 1024 1024"),
        (8192, 8192, 2000, "2000 8192 8192"),
        (64, 128, 2000, "1 128 128"),
    ],
)
def test_the_limit_of_open_files_is_raised_or_bounds_the_connections(soft, hard, wanted, expected):
    command = [sys.executable, "-c", ASK, str(soft), str(hard), str(wanted)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - ours
    assert done.stdout.strip() == expected
    assert ("leaves room" in done.stderr) == (not expected.startswith("2000"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep Python's own allocator")
def test_few_small_objects_keep_no_memory_around_them():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONMALLOC"}
    done = subprocess.run(  # noqa: S603 - ours
        [sys.executable, "-c", HOLES], capture_output=True, check=True, text=True, env=environment
    )
    grown, returned = map(int, done.stdout.split())
    assert grown > 30_000_000
    assert returned > 0.8 * grown
