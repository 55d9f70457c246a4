"""``python -m tests.chaos``: a whole service, killed again and again while it works.

Real processes: the API, two workers with their trainers, Redis, SQLite or PostgreSQL, and files in a
folder or on an S3 server. While jobs are started over HTTP, processes are killed, frozen, asked to end and started again, and Redis
is wiped. At the end every promise is checked: docs/reliability.md says which.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from sqlalchemy import func, select

from models_store.database.database import Database
from models_store.database.schema import JobRow
from models_store.errors import DatabaseError
from models_store.files.blobs import Blobs
from models_store.job_states import FINAL_STATES, JobRole
from tests.bucket_servers import S3Server
from tests.chaos.asking import Asking
from tests.chaos.caller import MAX_QUEUED, Caller
from tests.chaos.checker import violations
from tests.chaos.faults import Faults
from tests.chaos.history import History
from tests.chaos.others import Others, look_again
from tests.chaos.parts import SLOTS, Service
from tests.chaos.verdict import Verdict
from tests.servers import PostgresServer

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
        service = Service(folder, postgres, bucket, max_queued=MAX_QUEUED)
        try:
            broken = _run(service, options)
        finally:
            service.close()
    finally:
        for server in (postgres, bucket):
            if server is not None:
                server.close()
    if broken:
        print(f"seed {options.seed}; logs, data and history.jsonl are in {folder}")
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
    history = History(service.folder / "history.jsonl")
    asking = Asking(service.url, "submitter", history)
    caller = Caller(asking, jobs=options.jobs, random_=random.Random(options.seed + 1))
    others = Others(service.url, history, caller.accepted, seed=options.seed)
    caller.start()
    others.start()
    began = time.monotonic()
    stuck = not _disturb(caller, faults, database, options)
    took_s = time.monotonic() - began
    caller.stop()
    service.wait_ready()
    others.stop()
    look_again(asking, history)
    asking.close()
    history.close()
    logs = [service.folder / f"{worker.name}.log" for worker in service.workers]
    blobs = Blobs(service.settings.store_address)
    verdict = Verdict(database, blobs, caller.accepted, logs=logs)
    database.dispose()
    found = verdict.violations()
    found += violations(history.calls, complete=not stuck, max_queued=MAX_QUEUED, returning=SLOTS)
    if stuck:
        found.append(f"nothing moved for {_STUCK_S:g} s")
    _report(options, faults, caller, verdict, took_s)
    print(f"  calls    {_listed(_answers(history))}, none for {_longest_silence(history):.0f} s")
    for violation in found:
        print(f"VIOLATION: {violation}")
    print("every promise was kept" if not found else f"{len(found)} violations")
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
        number = sum(faults.done.values())
        if number < options.kills and number <= options.kills * max(
            late, caller.final / options.jobs
        ):
            faults.one()
        time.sleep(pauses.uniform(0.2, 1.2))
        caller.final = _final(database, otherwise=caller.final)
        moved = caller.final + len(caller.accepted.seeds)
        if moved != seen:
            seen, changed_at = moved, time.monotonic()
        if time.monotonic() - changed_at > _STUCK_S:
            return False
    return True


def _answers(history: History) -> dict[str, int]:
    counts = Counter[str]()
    for call in history.calls:
        counts["done"] += call.done
        counts["refused"] += call.refused
        counts["failed"] += call.unsure and call.status is not None
        counts["lost"] += call.status is None
    return counts


def _longest_silence(history: History) -> float:
    """Return the longest time in which no caller was answered, in seconds."""
    ends = [0.0, *sorted(call.ended for call in history.calls if call.done or call.refused)]
    return max((after - before for before, after in pairwise(ends)), default=0.0)


def _final(database: Database, *, otherwise: int) -> int:
    try:
        with database.read() as session:
            alone = JobRow.role.is_distinct_from(JobRole.CHILD)
            query = select(func.count()).where(JobRow.state.in_(FINAL_STATES), alone)
            return session.scalar(query) or 0
    except DatabaseError:
        return otherwise


def _report(
    options: argparse.Namespace, faults: Faults, caller: Caller, verdict: Verdict, took_s: float
) -> None:
    accepted = caller.accepted
    print(
        f"{options.database}, {options.store}, seed {options.seed}: {len(accepted.seeds)} jobs in {took_s:.0f} s"
    )
    print(f"  requests {accepted.requests}, of them answered again {accepted.replays}")
    print(f"  states   {_listed(verdict.states)}")
    if verdict.errors:
        print(f"  failures {_listed(verdict.errors)}")
    print(f"  faults   {sum(faults.done.values())}, of them kill -9 {faults.kills}")
    for kind, number in sorted(faults.done.items()):
        print(f"           {number:4} {kind}")
    if faults.links:
        print(f"           connections: {_listed(faults.links)}")
    print(
        f"  attempts {verdict.attempts}, begun {verdict.starts},"
        f" begun twice {verdict.double_starts}"
    )
    if faults.ends_s:
        print(f"  workers ended {max(faults.ends_s):.1f} s after SIGTERM at the most")
    print(f"  files of models that no version names: {verdict.orphans}")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


if __name__ == "__main__":
    sys.exit(main())
