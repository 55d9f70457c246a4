"""The text that `densityd up` prints once the service is ready."""

from pathlib import Path

_TEXT = """\
densityd is ready.

  Open in the browser    {url}
  Or in a terminal       densityd demo{address}
  Data and logs          {data_dir}
  Stop                   Ctrl-C
{key}"""
_KEY = """
The service wants an API key: `densityd keys create --scope write` makes one. The page asks for it,
and commands read it from DENSITYD_API_KEY.
"""
_USUAL = "http://127.0.0.1:8000"


def format_banner(url: str, *, data_dir: Path, with_key: bool) -> str:
    """Return the text for a service at `url`, which may want a key."""
    address = "" if url == _USUAL else f" --url {url}"
    key = _KEY if with_key else ""
    return _TEXT.format(url=url, address=address, data_dir=data_dir, key=key)
