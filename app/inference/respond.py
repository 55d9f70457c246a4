"""Response of an inference request, written a few rows at a time."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import orjson
from starlette.responses import Response

from app.fairness.turns import in_thread, in_thread_of_cells
from app.http.body_memory import ProjectMemory, Share
from app.http.json_body import JSON_MEDIA_TYPE
from app.http.streaming import Piece, StreamedResponse
from app.inference.functions import Served
from app.inference.tensors import MAX_CELLS, bytes_of, json_of
from app.inference.views import Datatype, InferRequest
from app.problems.problem import Problem
from app.rows.shape import Floats

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_MEDIA_TYPE = "application/octet-stream"

Values = Floats | Sequence[str]
Chunks = Callable[[], AsyncGenerator[Values, None]]

PIECE_BYTES = 2**18
"""Bytes of values, or of the longest texts that they may be, that are written at a time."""

NUMBER_BYTES = np.dtype(np.float64).itemsize
"""Bytes of a number."""

HELD_BYTES = 2**21
"""Bytes of values and their text, of a response of more than that, while a caller reads slowly."""


@dataclass(frozen=True)
class Output:
    """Output of a function.

    Args:
        shape: Sizes of its dimensions.
        datatype: Type of its values.
        chunks: Maker of a generator of its values, a few rows at a time; it is called once.
        value_bytes: Most bytes of a value.
    """

    shape: Sequence[int]
    datatype: Datatype
    chunks: Chunks
    value_bytes: int = NUMBER_BYTES

    @classmethod
    def of(cls, values: Floats) -> "Output":
        """Return the output of numbers that are in memory."""

        async def chunks() -> AsyncGenerator[Values, None]:
            rows = max(1, PIECE_BYTES // max(1, values[:1].nbytes))
            for place in range(0, len(values), rows):
                yield values[place : place + rows]

        return cls(values.shape, "FP64", chunks)

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


class _Part(NamedTuple):
    """Output as the response has it.

    Attributes:
        head: Description in JSON.
        output: Output itself.
        binary: True if its values are bytes behind the JSON.
        packed: Those bytes, where they had to be made before the JSON.
    """

    head: bytes
    output: Output
    binary: bool
    packed: Sequence[bytes] = ()


async def respond(
    wanted: InferRequest,
    served: Served,
    outputs: Mapping[str, Output],
    stack: AsyncExitStack,
    memory: ProjectMemory,
    share: Share,
) -> Response:
    """Return the response to a request; a large one is written while it is sent.

    Args:
        wanted: Body of the request.
        served: Function that was asked for.
        outputs: Outputs by their names.
        stack: Stack of what is released at the end; a response that is written later takes it over.
        memory: Memory of bodies of the caller's project.
        share: Share of it that the request has, part of the stack.

    Raises:
        Problem: The response has too many values for its form.
    """
    parts, rest = await _parts(wanted, outputs, share)
    about = {"model_name": served.name, "model_version": str(served.version.version)}
    start = orjson.dumps(about if wanted.id is None else {**about, "id": wanted.id})[:-1]
    pieces, headers = _json(start, parts), {"X-Model": served.version.ref}
    media_type = JSON_MEDIA_TYPE
    if any(part.binary for part in parts):
        header = b"".join([piece async for piece in pieces])
        media_type = BINARY_MEDIA_TYPE
        headers[HEADER_LENGTH] = str(len(header))
        headers["Content-Length"] = str(len(header) + rest)
        pieces = _binary(header, parts)
    held_bytes = sum(part.output.size * part.output.value_bytes for part in parts)
    if held_bytes <= PIECE_BYTES:
        body = b"".join([piece async for piece in pieces])
        return Response(body, media_type=media_type, headers=headers)
    more = min(held_bytes, HELD_BYTES) - share.size
    if more > 0:  # who holds much already would wait for others who wait, too
        pieces = memory.holding(more, pieces)
    return StreamedResponse(pieces, media_type=media_type, headers=headers, held=stack.pop_all())


async def _parts(
    wanted: InferRequest, outputs: Mapping[str, Output], share: Share
) -> tuple[list[_Part], int]:
    """Return the outputs as the response has them, and the bytes of those in binary form."""
    named = {output.name: output.parameters or {} for output in wanted.outputs or ()}
    all_binary = (wanted.parameters or {}).get("binary_data_output") is True
    parts, beside, rest = [], 0, 0
    for name, output in outputs.items():
        if named and name not in named:
            continue
        head: dict[str, object] = {
            "name": name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if named.get(name, {}).get("binary_data", all_binary) is True:
            packed = await _packed(output, share) if output.datatype == "BYTES" else ()
            size = sum(map(len, packed)) or output.size * NUMBER_BYTES
            rest += size
            head["parameters"] = {"binary_data_size": size}
            parts.append(_Part(orjson.dumps(head), output, binary=True, packed=packed))
        else:
            beside += output.size
            parts.append(_Part(orjson.dumps(head), output, binary=False))
    if rest and beside > MAX_CELLS:
        raise Problem(
            "limit-rows", f"A response may have {MAX_CELLS} values in JSON beside binary outputs."
        )
    return parts, rest


async def _packed(output: Output, share: Share) -> list[bytes]:
    """Return the bytes of texts, whose size is not known before."""
    if output.size > MAX_CELLS:
        raise Problem("limit-rows", f"A binary output may have {MAX_CELLS} texts.")
    packed: list[bytes] = []
    async with aclosing(output.chunks()) as chunks:
        async for values in chunks:
            packed.append(await in_thread_of_cells(bytes_of, values))
            share.hold(share.size + len(packed[-1]))
    return packed


async def _json(start: bytes, parts: Sequence[_Part]) -> AsyncGenerator[Piece, None]:
    before = start + b',"outputs":['
    for part in parts:
        yield before + (part.head if part.binary else part.head[:-1] + b',"data":[')
        before = b","
        if not part.binary:
            comma = b""
            write = in_thread_of_cells if part.output.datatype == "BYTES" else in_thread
            async with aclosing(part.output.chunks()) as chunks:
                async for values in chunks:
                    yield comma + (await write(json_of, values))[1:-1]
                    comma = b","
            yield b"]}"
    yield b"]}"


async def _binary(header: bytes, parts: Sequence[_Part]) -> AsyncGenerator[Piece, None]:
    yield header
    for part in parts:
        for piece in part.packed:
            yield piece
        if part.binary and not part.packed:
            async with aclosing(part.output.chunks()) as chunks:
                async for values in chunks:
                    yield await in_thread(bytes_of, values)
