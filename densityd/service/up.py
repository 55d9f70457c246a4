"""``densityd up``: a private Redis, the API and a worker under one parent process."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app.engine.kernels import are_compiled
from app.settings import ApiSettings
from densityd.errors import InterruptedStartError, StartError
from densityd.service import private_redis
from densityd.service.children import Child, Signals, end_all
from densityd.service.data_dir import lock_data_dir
from densityd.service.ports import build_url, format_banner, free_port, wants_key, why_unready
from models_store.files.private_files import close_to_others, create_private_files

_REDIS_START_S = 20.0
_API_START_S = 900.0  # the kernels may have to be compiled, on a busy machine
_PATIENCE_S = 10.0
_LOOK_S = 5.0
# Together under ten seconds, with the time to notice the ends.
_WORK_GRACE_S = 7.5
_DRAIN_S = 4.0  # of these, where the API needs no longer
_REDIS_GRACE_S = 1.5


class Service:
    """The running service.

    Args:
        settings: Settings, which the children read from the environment too.
        say: Prints a text for the person at the terminal.
        verbose: Write the children's logs to this process's standard error.
    """

    def __init__(
        self, settings: ApiSettings, *, say: Callable[[str], None], verbose: bool = False
    ) -> None:
        self._settings = settings
        self._say = say
        logs = None if verbose else settings.data_dir / "logs"
        self._redis: Child | None = None
        if settings.broker_url is None:
            self._redis = _child("redis", private_redis.build_command(settings.redis_socket), logs)
        self._compiler = _child(
            "kernels", [*_python("densityd.service.kernels"), str(settings.data_dir)], logs
        )
        self._api = _child("api", _python("app"), logs)
        self._worker = _child("worker", _python("workers"), logs)
        self._children = [
            child for child in (self._redis, self._api, self._worker) if child is not None
        ]

    def run(self, signals: Signals) -> None:
        """Start the children, keep them running, and end them after a signal.

        Raises:
            StartError: A child did not start; none is left running.
        """
        try:
            self._start(signals)
            url = build_url(self._settings.host, self._settings.port)
            data_dir = self._settings.data_dir
            self._say(format_banner(url, data_dir=data_dir, with_key=wants_key(url)))
            while not signals.asked_to_end:
                self._check_children(say=self._say)
                signals.wait(self._get_pause_s())
            self._say("Stopping: trainings write a checkpoint and continue at the next start.")
        except InterruptedStartError:
            self._say("Stopping.")
        finally:
            self._stop(signals)

    def _start(self, signals: Signals) -> None:
        if self._redis is not None:
            path = self._settings.redis_socket
            _start(self._redis)
            self._wait(
                "Redis",
                lambda: None if private_redis.is_up(path) else "It does not respond yet.",
                _REDIS_START_S,
                signals,
            )
        _prepare_stores()
        self._compile_kernels(signals)
        _start(self._api)
        _start(self._worker)
        url = build_url(self._settings.host, self._settings.port)
        self._wait("the API", lambda: why_unready(url), _API_START_S, signals)

    def _compile_kernels(self, signals: Signals) -> None:
        """Compile the kernels before the first start, and say how far that is.

        Where it fails, the API tells what is wrong, or works without them.
        """
        if are_compiled(self._settings.data_dir):
            return
        self._say("Compiling kernels for this processor, once: about a minute on two cores.")
        told = self._compiler.read_last_message()
        _start(self._compiler)
        while self._compiler.running:
            if signals.asked_to_end:
                raise InterruptedStartError
            signals.wait(0.5)
            if (line := self._compiler.read_last_message()) not in ("", told):
                told = line
                self._say(f"  {line}")

    def _wait(
        self, name: str, why_unready: Callable[[], str | None], limit_s: float, signals: Signals
    ) -> None:
        began = time.monotonic()
        told = None
        while (reason := why_unready()) is not None:
            if signals.asked_to_end:
                raise InterruptedStartError
            self._check_children(say=lambda _: None)  # it is told once, at the end of the start
            for child in self._children:
                if child.failures:
                    raise StartError(f"{child.name} does not start: {child.read_last_message()}")
            waited_s = time.monotonic() - began
            if waited_s > limit_s:
                logs = self._settings.data_dir / "logs"
                raise StartError(
                    f"{name} did not come up within {limit_s:g} s: {reason} See the logs in {logs}."
                )
            if waited_s > _PATIENCE_S and reason != told:
                told = reason
                self._say(f"Waiting for {name}. {reason}")
            signals.wait(0.1)

    def _check_children(self, *, say: Callable[[str], None]) -> None:
        for child in self._children:
            if (ended := child.check_end()) is not None:
                say(f"{child.name} {ended}.")
            if child.restart_at is not None and time.monotonic() >= child.restart_at:
                unstarted = child.start()
                if unstarted is not None:
                    say(f"{child.name} {unstarted}.")

    def _get_pause_s(self) -> float:
        due = [child.restart_at for child in self._children if child.restart_at is not None]
        return min([_LOOK_S, *(at - time.monotonic() for at in due)])

    def _stop(self, signals: Signals) -> None:
        asked = signals.asked_to_end
        drain_s = max(0.0, self._settings.drain_delay_s + self._settings.drain_s - _DRAIN_S)
        end_all(
            [
                [self._compiler, self._worker, self._api],
                [] if self._redis is None else [self._redis],
            ],
            grace_s=[_WORK_GRACE_S + drain_s, _REDIS_GRACE_S],
            pause=signals.wait,
            # A second signal ends the wait.
            hurry=lambda: signals.asked_to_end > max(1, asked),
        )


def up(settings: ApiSettings, *, say: Callable[[str], None], verbose: bool = False) -> None:
    """Run the whole service until a signal ends it.

    Args:
        settings: Settings, which the children read from the environment too.
        say: Prints a text for the person at the terminal.
        verbose: Write the children's logs to this process's standard error.

    Raises:
        StartError: The service cannot start.
    """
    address = build_url(settings.host, settings.port)
    create_private_files()
    with lock_data_dir(settings.data_dir, address=address), Signals() as signals:
        free_port(settings.host, settings.port)
        try:
            (settings.data_dir / "logs").mkdir(mode=0o700, exist_ok=True)
            if (warning := close_to_others(settings.data_dir)) is not None:
                say(warning)
        except OSError as error:
            raise StartError(f"{error.filename} cannot be used: {error.strerror}.") from error
        Service(settings, say=say, verbose=verbose).run(signals)


def _start(child: Child) -> None:
    if (why := child.start()) is not None:
        raise StartError(f"{child.name} {why.partition(';')[0]}.")


def _prepare_stores() -> None:
    """Prepare the database and the store in a process that ends: this one stays small."""
    run = subprocess.run(  # noqa: S603 - our own command
        _python("densityd.service.stores"), stderr=subprocess.PIPE, text=True, check=False
    )
    if run.returncode:
        raise StartError(run.stderr.strip().rpartition("\n")[2])


def _python(module: str) -> list[str]:
    # -P: a file named like a module in the current folder must not shadow it.
    return [sys.executable, "-P", "-m", module]


def _child(name: str, command: list[str], logs: Path | None) -> Child:
    return Child(name, command, log_path=None if logs is None else logs / f"{name}.log")
