"""``densityd``: the command line, and the commands that run a service."""

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from app.settings import ApiSettings
from densityd.admin import audit, backup, keys, migrate, prune_files
from densityd.commands import (
    account,
    datasets,
    demo,
    infer,
    jobs,
    label,
    models,
    prune,
    sample,
    score,
    top,
    train,
    webhooks,
)
from densityd.errors import StartError
from models_store.settings import first_error
from workers.settings import WorkerSettings

_START_FAILED = 1
_WRONG_SETTINGS = 2

# What uses a running service through the client, in the order of the help, as are all lists here.
_OF_A_SERVICE: list[Callable[..., None]] = [
    demo.demo,
    train.train,
    train.sweep,
    infer.infer,
    score.score,
    sample.sample,
    top.top,
    label.label,
    prune.prune,
    account.whoami,
    account.usage,
]
_GROUPS_OF_A_SERVICE = {
    "datasets": datasets.app,
    "jobs": jobs.app,
    "models": models.app,
    "webhooks": webhooks.app,
}
# What uses the database and the files of a service.
_BESIDE_A_SERVICE: list[Callable[..., None]] = [
    migrate.migrate,
    backup.backup,
    backup.restore,
    prune_files.prune_files,
]
_GROUPS_BESIDE_A_SERVICE = {"keys": keys.app, "audit": audit.app}


def _names(commands: Iterable[Callable[..., None]], groups: Iterable[str] = ()) -> list[str]:
    return [*(command.__name__.replace("_", "-") for command in commands), *groups]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


_USING = _names(_OF_A_SERVICE, _GROUPS_OF_A_SERVICE)
_RUNNING = [
    "up",
    "doctor",
    *_names(_BESIDE_A_SERVICE, _GROUPS_BESIDE_A_SERVICE),
    "api",
    "worker",
]


class _NewcomersFirst(TyperGroup):
    """Commands in the order in which one needs them: start a service, use it, maintain it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  typer's context is private
        order = ["up", *_USING, *_RUNNING]
        known = {name: place for place, name in reversed(list(enumerate(order)))}
        return sorted(super().list_commands(ctx), key=lambda name: known.get(name, len(order)))


app = typer.Typer(
    name="densityd",
    cls=_NewcomersFirst,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Density estimation with normalising flows, as a REST service.\n\n"
    "`densityd up` starts the service on this machine and prints the address of its page;"
    " `densityd demo`, in another terminal, trains an example and prints what to do with it.\n\n"
    f"{_listed(_USING)} use a running service. They exit with 0 on"
    " success, 1 on failure, 2 on wrong usage, and 3 if the service cannot be reached.\n\n"
    f"{_listed(_RUNNING)} run and maintain"
    " a service on this machine. Settings are environment variables that begin with DENSITYD_;"
    " `densityd doctor` prints them all.",
)
for command in _OF_A_SERVICE + _BESIDE_A_SERVICE:
    app.command()(command)
for name, group in (_GROUPS_OF_A_SERVICE | _GROUPS_BESIDE_A_SERVICE).items():
    app.add_typer(group, name=name)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="Port to listen on; 0 for any free one.", show_default="8000"
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(file_okay=False, help="Folder of the data.", show_default="./data"),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, max=256, help="Number of jobs that run at the same time.", show_default="2"
    ),
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - a flag of the command line
    if wanted:
        typer.echo(f"densityd {installed_version('densityd')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    verbose: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--verbose", help="Write all logs to standard error instead of files.")
    ] = False,
) -> None:
    """Run the whole service on this machine: API, worker and a private Redis.

    Ctrl-C ends it; jobs continue at the next start on the same folder.

    Example: densityd up --port 9000 --data-dir /var/lib/densityd --workers 2
    """
    _override(HOST=host, PORT=port, DATA_DIR=data_dir, WORKER_CONCURRENCY=workers)
    # A short job begins beside a long one.
    os.environ.setdefault("DENSITYD_WORKER_CONCURRENCY", "2")
    from densityd.service.ports import free_port  # noqa: PLC0415 - only this command needs it
    from densityd.service.up import up as run  # noqa: PLC0415

    api, _ = _settings()
    try:
        if api.port == 0:
            _override(PORT=free_port(api.host, 0))
            api, _ = _settings()
        run(api, say=_say, verbose=verbose)
    except StartError as error:
        _fail(str(error), _START_FAILED)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Number of processes that share the port.", show_default="1"
        ),
    ] = None,
) -> None:
    """Run the API alone; workers, database and broker run elsewhere.

    Example: DENSITYD_BROKER_URL=redis://redis:6379/0 densityd api --host 0.0.0.0 --workers 4
    """
    _override(HOST=host, PORT=port, API_PROCESSES=workers)
    _settings()
    # Replaces this process, so that signals and the exit status are the API's own.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "app"])  # noqa: S606


@app.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="Number of jobs at a time.", show_default="1")
    ] = None,
    check: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option(
            "--check",
            help="Exit with 0 if the worker on this host is alive and takes jobs, else with 1.",
        ),
    ] = False,
) -> None:
    """Run one worker, which runs the jobs that the API accepts.

    On SIGTERM every training writes a checkpoint and returns to the queue.

    Examples: densityd worker --concurrency 2; DENSITYD_DEVICE=cuda densityd worker;
    densityd worker --check
    """
    _override(WORKER_CONCURRENCY=concurrency)
    _, settings = _settings()
    if check:
        from models_store.database.database import Database  # noqa: PLC0415
        from models_store.errors import DatabaseError  # noqa: PLC0415
        from models_store.jobs.live_workers import Workers  # noqa: PLC0415
        from workers.heartbeat import find_worker  # noqa: PLC0415

        try:
            worker = find_worker(Workers(Database(settings.resolved_database_url)), settings)
        except DatabaseError as error:
            _fail(str(error), _START_FAILED)
        if worker is None:
            _fail("no worker is alive on this host.", _START_FAILED)
        if worker.unfit is not None:
            _fail(f"the worker takes no jobs: {worker.unfit}", _START_FAILED)
        typer.echo(f"alive at {worker.seen_at:%H:%M:%S} UTC")
        return
    # Replaces this process: its trainers would import the command line again.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers"])  # noqa: S606


@app.command()
def doctor(
    as_json: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--json", help="Print one JSON object.")
    ] = False,
    deep: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--deep", help="Read every stored file and check its hash.")
    ] = False,
    grace_h: Annotated[
        float,
        typer.Option(min=0, help="Minimum age in hours of a file without a row that is reported."),
    ] = 24,
) -> None:
    """Print every setting, check database, broker, storage and device, and compare rows with files.

    The exit status is 1 if there is a problem. Passwords are masked. It may run beside the
    service, and changes nothing: `densityd prune-files` deletes files that nothing needs. The file
    of a dataset or model that is lost or damaged must be restored from a back-up.

    Examples: densityd doctor; densityd doctor --deep; densityd doctor --json | jq .findings
    """
    from densityd.admin.doctor import examine  # noqa: PLC0415 - only this command needs it

    report = examine(*_settings(), deep=deep, grace_s=grace_h * 3600)
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else report.as_text())
    if not report.healthy:
        raise typer.Exit(1)


def _override(**values: object) -> None:
    """Set environment variables from options, for this process and its children."""
    for name, value in values.items():
        if value is not None:
            os.environ[f"DENSITYD_{name}"] = str(value)


def _settings() -> tuple[ApiSettings, WorkerSettings]:
    try:
        return ApiSettings(), WorkerSettings()
    except ValidationError as error:
        _fail(first_error(error), _WRONG_SETTINGS)


def _say(text: str) -> None:
    with suppress(OSError):  # the service serves on, though nobody can read what it says
        typer.echo(text)


def _fail(text: str, status: int) -> NoReturn:
    typer.echo(f"densityd: {text}", err=True)
    raise typer.Exit(status)


def _separate_examples(group: typer.Typer) -> None:
    """Put each example in the help on a line that is not wrapped, and list commands by a clause."""
    for command in group.registered_commands:
        text, _, examples = (inspect.getdoc(command.callback) or "").partition("Example")
        command.short_help = re.split(r"[;.]\s", text, maxsplit=1)[0].replace("\n", " ").rstrip(".")
        lines = " ".join(examples.partition(":")[2].split()).split("; ")
        command.help = "\n  ".join([f"{text}\b\nExamples:", *lines])
    for subgroup in group.registered_groups:
        if subgroup.typer_instance is not None:
            _separate_examples(subgroup.typer_instance)


_separate_examples(app)
