"""The text that `densityd up` prints once the service is ready."""

from pathlib import Path

_TEXT = """\
densityd is ready.

  Open in the browser    {url}
  Data and logs          {data_dir}
  Stop                   Ctrl-C

Or from another terminal, line by line: upload a table, train on it and, some seconds later, score
two rows.

{lines}
"""

# A parabola with noise: 1000 rows that any shell can make.
_TABLE = (
    """awk 'BEGIN {print "x,y"; srand(1);"""
    """ for (i = 0; i < 1000; i++) {x = 4 * rand() - 2; print x "," x * x + rand()}}'"""
)


def curl_lines(url: str) -> list[str]:
    """Return three lines for a shell: upload, train and, once that has ended, score."""
    csv, json = "-H 'Content-Type: text/csv'", "-H 'Content-Type: application/json'"
    upload = (
        f"ID=$({_TABLE} | curl -sS {csv} --data-binary @- '{url}/v1/datasets?name=parabola'"
        " | grep -o 'ds_[0-9a-f]*' | head -n 1)"
    )
    body = '{"model_name": "parabola", "dataset_id": "\'$ID\'"}'
    train = f"curl -sS {json} -d '{body}' {url}/v1/jobs/training"
    rows = '{"rows": [[1, 1.5], [1, 9]]}'
    score = f"curl -sS {json} -d '{rows}' {url}/v1/models/parabola/log_prob"
    return [upload, train, score]


def format_banner(url: str, *, data_dir: Path) -> str:
    """Return the text for a service at `url`."""
    lines = "\n\n".join(f"  {line}" for line in curl_lines(url))
    return _TEXT.format(url=url, data_dir=data_dir, lines=lines)
