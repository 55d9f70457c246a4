"""The way from a request for numbers of rows to its response."""

from starlette.responses import Response

from app.http.json_body import read_body
from app.limits import Share, body_share, in_thread
from app.problems.problem import Problem
from app.rows.body import Decoded, RowsBody
from app.rows.body_warnings import body_warnings, warning_headers
from app.rows.codecs import request_codec
from app.rows.decode.tables import UNPACKED
from app.rows.model_types import RowWarnings
from app.rows.respond import respond_whole
from app.rows.shape import Floats
from app.scoring.request import RowFunction, ScoreRequest

ROW_WARNINGS_HEADER = "X-Row-Warnings"
_QUICK_VALUES = 4096
_VALUE_BYTES = 8
_NUMBER_BYTES = 24  # most of a number as text


async def respond(score: ScoreRequest, function: RowFunction) -> Response:
    """Respond with what a function makes of each row of the body.

    Args:
        score: Request to respond to.
        function: Function to compute.

    Raises:
        Problem: The rows are not valid.
        OverloadedError: The engine has too much to do.
        StoreError: The model cannot be loaded.
        ClientDisconnect: The caller has left.
    """
    with body_share(score.request) as share:
        rows, about_body = await _read(score, share)
        _check_results(score, function, len(rows))
        async with score.flow(function) as flow:
            values = await score.compute(function, flow, rows)
        warnings = await _warnings(score, rows)
        told = body_warnings(about_body)
        headers = {**score.headers, **_headers(warnings), **warning_headers(told)}
        table = score.table(function, len(rows), warnings, body=told)
        chunk = score.chunk(function, values, rows)
        return await respond_whole(score.codec, table, chunk, headers=headers)


async def _read(score: ScoreRequest, share: Share) -> Decoded:
    """Return the rows of the body, whose bytes the share counts."""
    codec, parameters = request_codec(score.request.headers.get("content-type"))
    state = score.state
    limit = codec.max_bytes(state.settings)
    source = RowsBody(
        content=await read_body(score.request, limit=limit, share=share, advice=_ADVICE),
        format=codec.format,
        parameters=parameters,
        shape=score.shape,
        settings=state.settings,
        blobs=state.blobs,
        parsers=state.parsers,
    )
    return await codec.read(source)


_ADVICE = " Split it, or upload the rows as a dataset and start a scoring job."


def _check_results(score: ScoreRequest, function: RowFunction, rows: int) -> None:
    """Refuse results of too many bytes, in the format of the response.

    Raises:
        Problem: `limit-rows`.
    """
    row_bytes = _VALUE_BYTES * function.width
    if score.codec.text:  # which may repeat the names in each row
        row_bytes = _NUMBER_BYTES * function.width + sum(map(len, function.columns))
    most = UNPACKED * score.state.settings.max_body_bytes
    if rows * row_bytes > most:
        raise Problem("limit-rows", f"The response may have more than {most} bytes.{_ADVICE}")


async def _warnings(score: ScoreRequest, rows: Floats) -> RowWarnings | None:
    """Return the warnings about rows of a model that has types: levels that training never saw."""
    if score.types is None:
        return None
    warnings = RowWarnings(score.types)
    if rows.size > _QUICK_VALUES:
        await in_thread(warnings.add, rows, start=0)
    else:
        warnings.add(rows, start=0)
    return warnings


def _headers(warnings: RowWarnings | None) -> dict[str, str]:
    return {} if warnings is None else {ROW_WARNINGS_HEADER: warnings.header}
