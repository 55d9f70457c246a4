"""``densityd webhooks``: URLs that are notified when jobs end."""

from itertools import islice
from operator import attrgetter
from typing import Annotated

import typer

from densityd.terminal.console import echo_record, echo_records, echo_table, note, service
from densityd.terminal.options import AsJson, Limit, Url

app = typer.Typer(
    help="URLs that are notified when jobs end.", no_args_is_help=True, rich_markup_mode=None
)
WebhookId = Annotated[str, typer.Argument(metavar="ID", help="Id of the webhook, wh_...")]


@app.command()
def create(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="URL that gets the events.")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="Event that it gets: job.succeeded, job.failed or job.cancelled. Repeatable.",
            show_default="all",
        ),
    ] = None,
    description: Annotated[str | None, typer.Option(help="Text for people.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook, which notifies a URL when jobs end, and print its id and its secret.

    Example: densityd webhooks create https://example.org/densityd --event job.failed
    """
    with service(url) as client:
        made = client.webhooks.create(address, events=event, description=description)
        return echo_record(made) if as_json else typer.echo(f"{made.id} {made.secret}")


@app.command("list")
def list_webhooks(url: Url = None, as_json: AsJson = False) -> None:
    """List webhooks.

    Example: densityd webhooks list
    """
    with service(url) as client:
        found = client.webhooks.list()
        if as_json:
            return echo_records(found)
        rows = [(one.id, one.url, ", ".join(one.events), one.disabled_at) for one in found]
        return echo_table(("ID", "URL", "EVENTS", "DISABLED"), rows)


@app.command()
def deliveries(
    webhook_id: WebhookId, limit: Limit = 50, url: Url = None, as_json: AsJson = False
) -> None:
    """List what was delivered to a webhook, newest first, and what failed.

    Example: densityd webhooks deliveries wh_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        found = list(islice(client.webhooks.deliveries(webhook_id), limit))
        if as_json:
            return echo_records(found)
        fields = attrgetter("created_at", "event", "attempts", "delivered", "error")
        return echo_table(("TIME", "EVENT", "ATTEMPTS", "DELIVERED", "ERROR"), map(fields, found))


@app.command("test")
def send_test(webhook_id: WebhookId, url: Url = None) -> None:
    """Send the event webhook.test to a webhook; `deliveries` shows the outcome.

    Example: densityd webhooks test wh_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        note(f"{client.webhooks.test(webhook_id).id} is due")


@app.command()
def rotate(webhook_id: WebhookId, url: Url = None) -> None:
    """Give a webhook another secret and print it; a disabled webhook is enabled again.

    Example: densityd webhooks rotate wh_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        typer.echo(client.webhooks.rotate(webhook_id).secret)


@app.command()
def delete(webhook_id: WebhookId, url: Url = None) -> None:
    """Delete a webhook.

    Example: densityd webhooks delete wh_0f3c5f4e7d0c4d5b9b8f1e2a3c4d5e6f
    """
    with service(url) as client:
        client.webhooks.delete(webhook_id)
