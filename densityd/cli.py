"""``densityd``: the command line, and the commands that run a service."""

import inspect
import json
import os
import re
import sys
from contextlib import suppress
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.settings import ApiSettings
from densityd.admin import audit, copies, keys
from densityd.admin.installation import failing, open_installation, override, read_settings
from densityd.commands import call, models, rows, things, train
from densityd.errors import StartError
from densityd.terminal import FAILED, fail, note
from models_store.settings import unknown_settings
from workers.settings import WorkerSettings


class _InOrder(TyperGroup):
    """Commands in the order in which one needs them: start a service, use it, maintain it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401  typer's context is private
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: (name != "up", names.index(name)))


app = typer.Typer(
    name="densityd",
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Density estimation with normalising flows, as a REST service.\n\n"
    "`densityd up` starts the service on this machine and prints the address of its page;"
    " `densityd demo`, in another terminal, trains an example and prints what to do with it.\n\n"
    "demo to call use a running service, the one of --url or DENSITYD_URL, with the key in DENSITYD_API_KEY."
    " They exit with 0 on success, 1 on failure, 2 on wrong usage, and 3 if the service cannot be reached."
    " The others run and maintain a service on this machine. Settings are environment variables that begin"
    " with DENSITYD_; `densityd doctor` prints them all.",
)
for command, name in (
    (train.demo, "demo"),
    (train.train, "train"),
    (rows.score, "score"),
    (rows.unusual, "unusual"),
    (rows.sample, "sample"),
    (rows.impute, "impute"),
    (things.list_, "list"),
    (things.show, "show"),
    (things.delete, "delete"),
    (things.cancel, "cancel"),
    (things.wait, "wait"),
    (things.download, "download"),
    (models.export, "export"),
    (models.import_, "import"),
    (models.alias, "alias"),
    (call.call, "call"),
):
    app.command(name)(command)

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


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - a flag of the command line
    if wanted:
        typer.echo(f"densityd {installed_version('densityd')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
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
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Number of jobs at a time.", show_default="2"),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Write all logs to standard error instead of files.")
    ] = False,
) -> None:
    """Run the whole service on this machine: API, worker and a private Redis.

    Ctrl-C ends it; jobs continue at the next start on the same folder.

    Example: densityd up --port 9000 --data-dir /var/lib/densityd --workers 2
    """
    override(HOST=host, PORT=port, DATA_DIR=data_dir, WORKER_CONCURRENCY=workers)
    # A short job begins beside a long one.
    os.environ.setdefault("DENSITYD_WORKER_CONCURRENCY", "2")
    from densityd.service.ports import free_port  # noqa: PLC0415 - only this command needs it
    from densityd.service.up import up as run  # noqa: PLC0415

    settings = read_settings(ApiSettings)
    read_settings(WorkerSettings)
    try:
        if settings.port == 0:
            override(PORT=free_port(settings.host, 0))
            settings = read_settings(ApiSettings)
        run(settings, say=_say, verbose=verbose)
    except StartError as error:
        fail(str(error), status=FAILED)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            max=256,
            help="Number of processes that share the port.",
            show_default="1",
        ),
    ] = None,
) -> None:
    """Run the API alone; workers, database and broker run elsewhere.

    Example: DENSITYD_BROKER_URL=redis://redis:6379/0 densityd api --host 0.0.0.0 --workers 4
    """
    override(HOST=host, PORT=port, API_PROCESSES=processes)
    read_settings(ApiSettings)
    # Replaces this process, so that signals and the exit status are the API's own.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "app"])  # noqa: S606


@app.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="Number of jobs at a time.", show_default="1")
    ] = None,
    check: Annotated[
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
    override(WORKER_CONCURRENCY=concurrency)
    settings = read_settings(WorkerSettings)
    if check:
        from models_store.database.database import Database  # noqa: PLC0415
        from models_store.errors import DatabaseError  # noqa: PLC0415
        from models_store.jobs.live_workers import Workers  # noqa: PLC0415

        try:
            alive = Workers(Database(settings.resolved_database_url)).alive()
        except DatabaseError as error:
            fail(str(error), status=FAILED)
        found = next((worker for worker in alive if worker.name == settings.label), None)
        if found is None:
            fail("no worker is alive on this host.", status=FAILED)
        if found.unfit is not None:
            fail(f"the worker takes no jobs: {found.unfit}", status=FAILED)
        typer.echo(f"alive at {found.seen_at:%H:%M:%S} UTC")
        return
    # Replaces this process: its trainers would import the command line again.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "workers"])  # noqa: S606


app.command()(copies.migrate)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every stored file and check its hash.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete files that no row names, and print them.")
    ] = False,
    grace_h: Annotated[
        float,
        typer.Option(min=0, help="Age in hours from which a file without a row is one."),
    ] = 24,
) -> None:
    """Print every setting, check database, broker, storage, memory and device, and compare rows with files.

    The exit status is 1 if there is a problem. Passwords are masked. It runs beside the service, and
    changes nothing without --delete. Files stay behind when a process is killed between a file and its
    row. After restoring an older database, do not delete before you are sure that no newer one will be
    restored. The file of a dataset or model that is lost must be restored from a back-up.

    Examples: densityd doctor; densityd doctor --deep; densityd doctor --delete;
    densityd doctor --json | jq .findings
    """
    from densityd.admin import doctor as examination  # noqa: PLC0415 - only this command needs it

    unknown = unknown_settings()
    for name in unknown:
        del os.environ[name]  # one of the findings, beside which the rest is examined
    settings, worker_settings = read_settings(ApiSettings), read_settings(WorkerSettings)
    grace_s = grace_h * 3600
    if delete:
        with failing(), open_installation(settings) as (database, blobs):
            for line in examination.delete_unneeded(database, blobs, grace_s=grace_s):
                note(line)
    report = examination.examine(
        settings, worker_settings, deep=deep, grace_s=grace_s, unknown=unknown
    )
    typer.echo(json.dumps(report.as_json(), indent=2) if as_json else report.as_text())
    if not report.healthy:
        raise typer.Exit(FAILED)


app.command()(copies.backup)
app.command()(copies.restore)
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")


def _say(text: str) -> None:
    with suppress(OSError):  # the service serves on, though nobody can read what it says
        typer.echo(text)


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
