"""Response of an inference request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import orjson
from starlette.responses import Response

from app.http.json_body import JSON_MEDIA_TYPE
from app.inference.functions import Served
from app.inference.tensors import MAX_CELLS, bytes_of, json_of
from app.inference.views import Datatype, InferRequest
from app.problems.problem import Problem
from app.rows.shape import Floats

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY_MEDIA_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Output:
    """Output of a function.

    Args:
        shape: Sizes of its dimensions.
        datatype: Type of its values.
        values: Numbers of that shape, or texts row by row.
    """

    shape: Sequence[int]
    datatype: Datatype
    values: Floats | Sequence[str]

    @classmethod
    def of(cls, values: Floats) -> "Output":
        """Return the output of numbers."""
        return cls(values.shape, "FP64", values)

    @classmethod
    def of_texts(cls, shape: Sequence[int], texts: Sequence[str]) -> "Output":
        """Return the output of texts."""
        return cls(shape, "BYTES", texts)


def respond(wanted: InferRequest, served: Served, outputs: Mapping[str, Output]) -> Response:
    """Return the response to a request: JSON, and behind it the values that are to be bytes.

    Args:
        wanted: Body of the request.
        served: Function that was asked for.
        outputs: Outputs by their names.

    Raises:
        Problem: The response has too many values for its form.
    """
    named = {output.name: output.parameters or {} for output in wanted.outputs or ()}
    all_binary = (wanted.parameters or {}).get("binary_data_output") is True
    heads, rest, beside = [], [], 0
    for name, output in outputs.items():
        if named and name not in named:
            continue
        head: dict[str, object] = {
            "name": name,
            "datatype": output.datatype,
            "shape": list(output.shape),
        }
        if named.get(name, {}).get("binary_data", all_binary) is True:
            rest.append(bytes_of(output.values))
            head["parameters"] = {"binary_data_size": len(rest[-1])}
            heads.append(orjson.dumps(head))
        else:
            beside += prod(output.shape)
            heads.append(orjson.dumps(head)[:-1] + b',"data":' + json_of(output.values) + b"}")
    if rest and beside > MAX_CELLS:
        raise Problem(
            "limit-rows", f"A response may have {MAX_CELLS} values in JSON beside binary outputs."
        )
    about = {"model_name": served.name, "model_version": str(served.version.version)}
    start = orjson.dumps(about if wanted.id is None else {**about, "id": wanted.id})[:-1]
    text = start + b',"outputs":[' + b",".join(heads) + b"]}"
    headers = {"X-Model": served.version.ref}
    if not rest:
        return Response(text, media_type=JSON_MEDIA_TYPE, headers=headers)
    headers[HEADER_LENGTH] = str(len(text))
    return Response(b"".join([text, *rest]), media_type=BINARY_MEDIA_TYPE, headers=headers)
