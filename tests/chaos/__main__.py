"""``python -m tests.chaos``: a whole service, killed again and again while it works.

Real processes: the API, two workers with their trainers, Redis, SQLite or PostgreSQL, and files in a
folder or on an S3 server. While jobs are started over HTTP, processes are killed, frozen, asked to end
and started again, and Redis is wiped. At the end every promise is checked: docs/reliability.md says which.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import func, select

from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.errors import DatabaseError
from models_store.files.blobs import Blobs
from models_store.job_states import FINAL_STATES, JobRole
from tests.chaos.caller import Caller
from tests.chaos.faults import Faults
from tests.chaos.service import Service
from tests.chaos.verdict import Verdict, listed
from tests.support.bucket_servers import S3Server
from tests.support.servers import PostgresServer

_STUCK_S = 600.0


def main() -> int:
    """Run once; the exit status."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    postgres = PostgresServer() if options.database == "postgresql" else None
    bucket = S3Server() if options.store == "s3" else None
    if bucket is not None:
        os.environ.update(bucket.environment)
    try:
        service = Service(folder, postgres, bucket)
        try:
            broken = _run(service, options)
        finally:
            service.close()
    finally:
        for server in (postgres, bucket):
            if server is not None:
                server.close()
    if broken:
        print(f"seed {options.seed}; logs and data are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--store", choices=["folder", "s3"], default="folder")
    parser.add_argument("--jobs", type=int, default=200, help="jobs to start (200)")
    parser.add_argument("--kills", type=int, default=80, help="faults, two in three kill -9 (80)")
    parser.add_argument(
        "--minutes", type=float, default=60, help="start no more jobs after so long (60)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the faults and of the caller (0)")
    return parser.parse_args()


def _run(service: Service, options: argparse.Namespace) -> bool:
    """Start jobs and do harm, then wait and judge; whether a promise was broken."""
    service.wait_ready()
    database = Database(service.settings.resolved_database_url)
    faults = Faults(service, random.Random(options.seed))
    caller = Caller(service.url, jobs=options.jobs, random_=random.Random(options.seed + 1))
    caller.start()
    began = time.monotonic()
    is_stuck = not _disturb(caller, faults, database, options)
    took_s = time.monotonic() - began
    caller.stop()
    service.wait_ready()
    accepted, logs = caller.accepted, [worker.log for worker in service.workers]
    verdict = Verdict(database, Blobs(service.settings.store_address), logs=logs)
    caller.look_again(verdict.versions)
    found = list(verdict.violations(accepted))
    if is_stuck:
        found.append(f"nothing moved for {_STUCK_S:g} s")
    told = {str(status or "lost"): number for status, number in accepted.answers.items()}
    print(f"{options.database}, {options.store}, seed {options.seed}: {took_s:.0f} s")
    print(
        f"  jobs     {len(accepted.seeds)}, asked for {accepted.requests} times, answered again {accepted.replays}"
    )
    print(f"  answers  {listed(Counter(told))}")
    print(
        f"  faults   {faults.done.total()}, of them kill -9 {faults.kills}: {listed(faults.done)}"
    )
    for line in verdict.summary(accepted):
        print(f"  {line}")
    for violation in found:
        print(f"VIOLATION: {violation}")
    print("every promise was kept" if not found else f"{len(found)} violations")
    database.dispose()
    return bool(found)


def _disturb(
    caller: Caller, faults: Faults, database: Database, options: argparse.Namespace
) -> bool:
    """Spread the faults over the jobs, then wait for the last job; False when nothing moves."""
    pauses = random.Random(options.seed + 2)
    began = changed_at = time.monotonic()
    seen = 0
    while not (caller.done and caller.final >= len(caller.accepted.seeds)):
        late = (time.monotonic() - began) / (60 * options.minutes)
        if late >= 1:
            caller.stop()
        share, number = max(late, caller.final / options.jobs), faults.done.total()
        if number < options.kills and number <= options.kills * share:
            faults.one()
        time.sleep(pauses.uniform(0.2, 1.2))
        caller.final = _final(database, otherwise=caller.final)
        moved = caller.final + len(caller.accepted.seeds)
        if moved != seen:
            seen, changed_at = moved, time.monotonic()
        if time.monotonic() - changed_at > _STUCK_S:
            return False
    return True


def _final(database: Database, *, otherwise: int) -> int:
    try:
        with database.read() as session:
            alone = JobRow.role.is_distinct_from(JobRole.CHILD)
            query = select(func.count()).where(JobRow.state.in_(FINAL_STATES), alone)
            return session.scalar(query) or 0
    except DatabaseError:
        return otherwise


if __name__ == "__main__":
    sys.exit(main())
