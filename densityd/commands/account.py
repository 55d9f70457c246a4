"""``densityd whoami`` and ``densityd usage``."""

import typer

from densityd.terminal.console import echo_facts, echo_record, service
from densityd.terminal.options import AsJson, Url


def whoami(url: Url = None, as_json: AsJson = False) -> None:
    """Show the project, the scope and the limits of the API key, and the version of the service.

    Examples: densityd whoami; densityd whoami --json
    """
    with service(url) as client:
        me = client.me()
        if as_json:
            return echo_record(me)
        key = "none" if me.key is None else me.key.id
        label = None if me.key is None else me.key.label
        echo_facts([("project", me.project), ("scope", me.scope), ("key", key), ("label", label)])
        echo_facts([("service", client.version().version)])
        typer.echo("\nlimits")
        limits = me.limits.model_dump()
        return echo_facts([(f"  {name}", value) for name, value in limits.items()])


def usage(url: Url = None, as_json: AsJson = False) -> None:
    """Show the storage and the requests that the project has used, with its quotas.

    Example: densityd usage
    """
    with service(url) as client:
        used = client.usage()
        if as_json:
            return echo_record(used)
        jobs = ", ".join(f"{count} {state}" for state, count in sorted(used.jobs.items()))
        return echo_facts(
            [
                ("project", used.project),
                ("stored bytes", f"{used.stored_bytes.used:,} of {used.stored_bytes.limit:,}"),
                ("queued jobs", f"{used.queued_jobs.used:,} of {used.queued_jobs.limit:,}"),
                ("datasets", used.datasets),
                ("models", f"{used.models:,} with {used.versions:,} versions"),
                ("jobs", jobs or None),
                ("rows computed today", used.computed_rows.today),
                ("rows in 30 days", used.computed_rows.last_30_days),
            ]
        )
