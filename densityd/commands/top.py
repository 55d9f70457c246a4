"""``densityd top``: jobs and models, live."""

import sys
import time
from typing import Annotated

import typer

from densityd.terminal.console import service
from densityd.terminal.options import Url

_PRINTED_WIDTH = 200  # of lines that no terminal breaks


def top(
    interval: Annotated[
        float, typer.Option(min=0.5, max=3600, help="Seconds between two updates.")
    ] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Print the current state once, and exit.")
    ] = False,
    url: Url = None,
) -> None:
    """Show jobs and models live, until Ctrl-C; without a terminal once.

    Examples: densityd top; densityd top --interval 10; densityd top --once
    """
    from rich.console import Console  # noqa: PLC0415 - only this command needs it
    from rich.live import Live  # noqa: PLC0415

    from densityd.terminal.overview import draw_overview  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else _PRINTED_WIDTH)
    with service(url) as client:
        if once or not sys.stdout.isatty():
            return console.print(draw_overview(client))
        try:
            with Live(draw_overview(client), console=console, screen=True) as live:
                while True:
                    time.sleep(interval)
                    live.update(draw_overview(client), refresh=True)
        except KeyboardInterrupt:
            return None
