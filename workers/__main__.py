"""``python -m workers``: one worker process."""

import sys

from pydantic import ValidationError

from models_store.settings import first_error
from workers.main import run_worker
from workers.settings import WorkerSettings

try:
    settings = WorkerSettings()
except ValidationError as error:
    sys.exit(f"densityd worker: {first_error(error)}")
sys.exit(run_worker(settings))
