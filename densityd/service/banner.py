"""The text that `densityd up` prints once the service is ready."""

from pathlib import Path

_TEXT = """\
densityd is ready.

  Open in the browser    {url}
  Data and logs          {data_dir}
  Stop                   Ctrl-C

Or from another terminal, line by line: {key}upload a table, train on it and, some seconds later, score
two rows.

{lines}
"""
_KEY = """\
put a key in DENSITYD_API_KEY, such as one that
`densityd keys create --scope write` makes, """
_BEARER = '-H "Authorization: Bearer $DENSITYD_API_KEY" '

# A parabola with noise: 1000 rows that any shell can make.
_TABLE = (
    """awk 'BEGIN {print "x,y"; srand(1);"""
    """ for (i = 0; i < 1000; i++) {x = 4 * rand() - 2; print x "," x * x + rand()}}'"""
)


def curl_lines(url: str, *, with_key: bool) -> list[str]:
    """Return three lines for a shell: upload, train and, once that has ended, score.

    Args:
        url: URL of the service.
        with_key: Send the API key in `DENSITYD_API_KEY`.
    """
    curl = f"curl -sS {_BEARER if with_key else ''}"
    csv, json = "-H 'Content-Type: text/csv'", "-H 'Content-Type: application/json'"
    upload = (
        f"ID=$({_TABLE} | {curl}{csv} --data-binary @- '{url}/v1/datasets?name=parabola'"
        " | grep -o 'ds_[0-9a-f]*' | head -n 1)"
    )
    body = '{"model_name": "parabola", "dataset_id": "\'$ID\'"}'
    train = f"{curl}{json} -d '{body}' {url}/v1/jobs/training"
    rows = '{"rows": [[1, 1.5], [1, 9]]}'
    score = f"{curl}{json} -d '{rows}' {url}/v1/models/parabola/log_prob"
    return [upload, train, score]


def format_banner(url: str, *, data_dir: Path, with_key: bool) -> str:
    """Return the text for a service at `url`, which may want a key."""
    lines = "\n\n".join(f"  {line}" for line in curl_lines(url, with_key=with_key))
    return _TEXT.format(url=url, data_dir=data_dir, key=_KEY if with_key else "", lines=lines)
