"""The progress of a job at a terminal."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from densityd.client.records import Job

_UNFINISHED = ("queued", "running")


class ProgressBar:
    """A progress bar with the epoch, the validation log-likelihood and the time left.

    Example:
        with ProgressBar() as bar:
            client.jobs.wait(job.id, on_progress=bar)

    Args:
        console: Console to write to; None for standard error. Nothing is shown if it is neither a
            terminal nor a notebook.
    """

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.fields[state]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._task = self._bar.add_task("", total=1.0, state="waiting")
        self._shown = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, job: Job) -> None:
        """Show the current state of a job, and a line for each trial that has ended since."""
        self._show_trials(job)
        fraction = 1.0 if job.state == "succeeded" else 0.0
        if job.progress is not None and not job.final:
            fraction = job.progress.fraction
        # The service's text is not the bar's markup.
        description = Text(describe_progress(job)).markup
        self._bar.update(self._task, completed=fraction, description=description, state=job.state)

    def _show_trials(self, job: Job) -> None:
        ended = [trial for trial in _trials(job) if trial.get("state") not in _UNFINISHED]
        for trial in ended[self._shown :]:
            self._bar.console.print(Text(describe_trial(trial)))
        self._shown = max(self._shown, len(ended))


def describe_trial(trial: Mapping[str, Any]) -> str:
    """Return a trial of a search as a line of a table."""
    reached = trial.get("robust_validation_log_likelihood")
    likelihood = f"{reached:9.3f} nats" if isinstance(reached, float | int) else f"{'':>9}     "
    seconds = trial.get("seconds")
    time = f"{seconds:7.1f} s" if isinstance(seconds, float | int) else f"{'':>7}  "
    return (
        f"stage {trial.get('stage')}  trial {trial.get('trial'):>2}  {trial.get('family'):<9}"
        f" {trial.get('epochs') or 0:>5} epochs {time} {likelihood}  {trial.get('state')}"
    )


def _trials(job: Job) -> list[Mapping[str, Any]]:
    trials = (job.metrics or {}).get("trials")
    return trials if isinstance(trials, list) else []


def describe_progress(job: Job) -> str:
    """Return the progress of a job in a few words."""
    parts = []
    metrics = job.metrics or {}
    if (epoch := metrics.get("epoch")) is not None:
        parts.append(f"epoch {epoch}")
    if job.progress is not None and job.progress.iteration is not None:
        parts.append(f"iteration {job.progress.iteration} of {job.progress.max_iterations}")
    if job.progress is not None and job.progress.children is not None:
        parts.append(f"stage {job.progress.stage} of {job.progress.stages}")
        parts.append(f"{job.progress.children_ended} of {job.progress.children} children ended")
    if job.progress is not None and job.progress.rows is not None:
        parts.append(f"{job.progress.rows} of {job.progress.total_rows} rows")
    if isinstance(reached := metrics.get("robust_validation_log_likelihood"), float | int):
        parts.append(f"validation log-likelihood {reached:.3f} nats")
    if isinstance(elbo := metrics.get("elbo"), float | int):
        parts.append(f"ELBO {elbo:.3f} nats")
    if job.progress is not None and job.progress.eta_seconds is not None and not job.final:
        parts.append(f"about {format_duration(job.progress.eta_seconds)} left")
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a duration for people: `47 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
