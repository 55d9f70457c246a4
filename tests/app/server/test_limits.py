import subprocess
import sys

import pytest

ASK = (
    "import resource, sys; from app.server.limits import connections_that_fit;"
    "resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:3])));"
    "print(connections_that_fit(int(sys.argv[3])), *resource.getrlimit(resource.RLIMIT_NOFILE))"
)


@pytest.mark.fault(87)
@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (1024, 4096, 2000, "2000 2256 4096"),
        (256, 1024, 2000, "768 1024 1024"),
        (4096, 4096, 2000, "2000 4096 4096"),
        (64, 128, 2000, "1 128 128"),
    ],
)
def test_the_limit_of_open_files_is_raised_or_bounds_the_connections(soft, hard, wanted, expected):
    command = [sys.executable, "-c", ASK, str(soft), str(hard), str(wanted)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - ours
    assert done.stdout.strip() == expected
    assert ("leaves room" in done.stderr) == (not expected.startswith("2000"))
