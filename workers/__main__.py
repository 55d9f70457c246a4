"""``python -m workers``: one worker process."""

import sys

from workers.main import run_worker
from workers.settings import WorkerSettings

sys.exit(run_worker(WorkerSettings()))
