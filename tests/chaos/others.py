"""Callers beside the one who starts jobs: they look on, move aliases, import and delete."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from models_store.files.blobs import Blobs, model_key
from models_store.files.checkpoints import save_model
from tests.app.serving import COLUMNS, SPEC, a_flow
from tests.chaos.asking import Asking, job_view, nothing, one_alias, one_version
from tests.chaos.caller import Accepted
from tests.chaos.history import History

MODEL = "imported"
ALIASES = ("blue", "green")
_PAUSE_S = (0.05, 0.5)
_SMALL = "a,b\n1,2\n3,5\n4,9\n"


class Others:
    """The threads of all of them.

    Args:
        url: Address of the service.
        history: Record of all calls.
        accepted: Jobs to look at, which become more.
        seed: Seed of what they do.
    """

    def __init__(self, url: str, history: History, accepted: Accepted, *, seed: int) -> None:
        self._stopping = threading.Event()
        self._askings: list[Asking] = []
        self._threads: list[threading.Thread] = []
        kinds: list[tuple[str, Callable[..., Any]]] = [
            ("reader", partial(Watcher, accepted)),
            ("follower", partial(Watcher, accepted)),
            ("mover", Mover),
            ("rival", Mover),
            ("keeper", Keeper),
            ("importer", Importer),
        ]
        for at, (name, kind) in enumerate(kinds):
            asking = Asking(url, name, history)
            step = kind(asking, random.Random(f"{seed} {name}")).step
            self._askings.append(asking)
            arguments = (step, random.Random(f"{seed} {at}"))
            self._threads.append(threading.Thread(target=self._run, args=arguments, daemon=True))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, after the calls that are under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for asking in self._askings:
            asking.close()

    def _run(self, step: Callable[[], None], random_: random.Random) -> None:
        while not self._stopping.wait(random_.uniform(*_PAUSE_S)):
            step()


class Watcher:
    """Looks at jobs, follows their events and lists them."""

    def __init__(self, accepted: Accepted, asking: Asking, random_: random.Random) -> None:
        self._accepted = accepted
        self._asking = asking
        self._random = random_
        self._after: dict[str, int] = {}

    def step(self) -> None:
        """Look once."""
        recent = list(self._accepted.seeds)[-10:]
        if not recent:
            return
        job_id = self._random.choice(recent)
        choice = self._random.random()
        if choice < 0.05:
            self._asking.jobs()
        elif choice < 0.15:
            self._asking.jobs("list_queued", state="queued")
        elif choice < 0.5:
            self._asking.job(job_id)
        else:
            after = self._random.choice([0, self._after.get(job_id, 0)])
            page = self._asking.events(job_id, after)
            if page is not None and page.is_success:
                self._after[job_id] = page.json()["next_after"]


class Mover:
    """Moves aliases, with and without conditions, deletes them and looks where they point."""

    def __init__(self, asking: Asking, random_: random.Random) -> None:
        self._asking = asking
        self._random = random_
        self._seen: dict[str, int] = {}

    def step(self) -> None:
        """Do one of these."""
        alias, choice = self._random.choice(ALIASES), self._random.random()
        if choice < 0.1:
            path = f"/v1/models/{MODEL}/aliases/{alias}"
            self._asking.ask(("delete_alias", f"{MODEL}@{alias}"), ("DELETE", path), said=nothing)
        elif choice < 0.5:
            self._move(alias)
        else:
            self._note(alias, self._asking.alias(MODEL, alias))

    def _move(self, alias: str) -> None:
        asked: dict[str, Any] = {"version": self._random.choice([1, 2])}
        headers = {}
        if alias in self._seen and self._random.random() < 0.4:
            asked["if_match"] = self._seen[alias]
            headers["If-Match"] = f'"{self._seen[alias]}"'
        answer = self._asking.ask(
            ("set_alias", f"{MODEL}@{alias}"),
            ("PUT", f"/v1/models/{MODEL}/aliases/{alias}"),
            asked=asked,
            said=one_alias,
            json={"version": asked["version"]},
            headers=headers,
        )
        self._note(alias, answer)

    def _note(self, alias: str, answer: httpx.Response | None) -> None:
        if answer is not None and answer.is_success:
            self._seen[alias] = int(answer.headers["etag"].strip('"'))


class Keeper:
    """Uploads small datasets under keys, looks for them, and deletes them."""

    def __init__(self, asking: Asking, random_: random.Random) -> None:
        self._asking = asking
        self._random = random_
        self._number = 0
        self._due: str | None = None
        self._ids: list[str] = []

    def step(self) -> None:
        """Do one of these; what was lost is asked again under its key."""
        choice = self._random.random()
        if self._due is not None or choice < 0.2 or not self._ids:
            self._upload()
        elif choice < 0.4:
            dataset_id = self._random.choice(self._ids)
            path = f"/v1/datasets/{dataset_id}"
            self._asking.ask(("delete_dataset", dataset_id), ("DELETE", path))
        else:
            dataset_id = self._random.choice(self._ids[-8:])
            path = f"/v1/datasets/{dataset_id}"
            self._asking.ask(("get_dataset", dataset_id), ("GET", path))

    def _upload(self) -> None:
        if self._due is None:
            self._number += 1
            self._due = f"table-{self._number}"
        answer = self._asking.ask(
            ("upload", self._due),
            ("POST", "/v1/datasets"),
            said=_made_id,
            content=_SMALL,
            headers={"Content-Type": "text/csv", "Idempotency-Key": self._due},
        )
        if answer is not None and answer.is_success:
            self._due = None
            self._ids.append(answer.json()["id"])


class Importer:
    """Imports models under keys, and looks at versions."""

    def __init__(self, asking: Asking, random_: random.Random) -> None:
        self._asking = asking
        self._random = random_
        self._files = [a_model_file(seed) for seed in (1, 2)]
        self._number = 0
        self._due: tuple[str, tuple[str, bytes]] | None = None
        self._versions: list[str] = []

    def step(self) -> None:
        """Do one of these; what was lost is asked again under its key."""
        if self._due is not None or len(self._versions) < 2 or self._random.random() < 0.05:
            self._import()
        else:
            self._asking.version(self._random.choice(self._versions))

    def _import(self) -> None:
        if self._due is None:
            self._number += 1
            self._due = f"import-{self._number}", self._random.choice(self._files)
        key, (sha256, content) = self._due
        answer = self._asking.ask(
            ("import", key),
            ("POST", f"/v1/models/{MODEL}/versions"),
            asked={"sha256": sha256},
            said=one_version,
            content=content,
            headers={"Content-Type": "application/octet-stream", "Idempotency-Key": key},
        )
        if answer is not None and answer.is_success:
            self._due = None
            self._versions.append(one_version(answer)["id"])


def look_again(asking: Asking, history: History) -> None:
    """Look at everything once more when nothing is disturbed any longer."""
    calls = list(history.calls)
    jobs = {call.said["id"] for call in calls if call.action == "submit" and call.done}
    versions = {call.said["id"] for call in calls if call.action == "import" and call.done}
    until_answered(lambda: asking.jobs() or None)
    for job_id in sorted(jobs):
        looked = until_answered(partial(asking.job, job_id))
        until_answered(partial(asking.events, job_id, 0))
        version = job_view(looked.json())["version"] if looked.is_success else None
        versions |= {version} if version and ":" in version else set()
    for version in sorted(versions):
        until_answered(partial(asking.version, version))
    for alias in ALIASES:
        until_answered(partial(asking.alias, MODEL, alias))


def until_answered(ask: Callable[[], Any]) -> Any:
    """Ask until there is an answer that is no 5xx, and return it.

    Raises:
        TimeoutError: There is none for a minute.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None and not getattr(answer, "is_server_error", False):
            return answer
        time.sleep(0.2)
    raise TimeoutError("the service does not answer any more")


def _made_id(response: httpx.Response) -> Mapping[str, Any]:
    return {"id": response.json()["id"]}


def a_model_file(seed: int) -> tuple[str, bytes]:
    """Return the SHA-256 and the bytes of a file that can be imported."""
    with TemporaryDirectory() as folder:
        blobs = Blobs.in_folder(Path(folder))
        stored = save_model(
            blobs,
            model_key("imported", 1),
            a_flow(seed),
            spec=SPEC,
            columns=COLUMNS,
            preprocessing={"standardise": True},
        )
        return stored.sha256, blobs.path(stored.key).read_bytes()
