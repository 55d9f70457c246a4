"""Every kind of problem: those of any request, here; those of datasets, jobs and models, beside."""

from app.problems.data_types import DATA_PROBLEMS
from app.problems.problem_type import ProblemType

_GENERAL = (
    ProblemType(
        "validation",
        422,
        "The request does not fit its schema",
        "A field of the body, the path, the query or a header has a wrong type, lies out of range"
        " or is missing. `errors` says which, and what it must be.",
    ),
    ProblemType(
        "unknown-field",
        422,
        "The body has a field that does not exist",
        "Unknown fields are refused, so that a misspelt option is never silently ignored."
        " `errors` points at each.",
    ),
    ProblemType(
        "unknown-parameter",
        422,
        "The query has a parameter that does not exist",
        "Unknown query parameters are refused, so that a misspelt option is never silently ignored."
        " `supported` lists those that the route has.",
    ),
    ProblemType(
        "unauthorized",
        401,
        "An API key is needed",
        "Send `Authorization: Bearer` with a key that is neither revoked nor expired. Keys are made"
        " with `densityd keys create`, and are never read from the query.",
    ),
    ProblemType(
        "forbidden",
        403,
        "The key's scope does not allow this",
        "Looking and scoring need `read`, every change needs `write`, what concerns all projects"
        " needs `admin`. `WWW-Authenticate` names the scope.",
    ),
    ProblemType(
        "foreign-site",
        403,
        "The request comes from another site's page",
        "A service without API keys serves programs and pages of its own machine alone. Create a"
        " key to serve others.",
    ),
    ProblemType(
        "not-found",
        404,
        "Not found",
        "No such route, or no such thing in your project. Things of other projects are not found"
        " either.",
    ),
    ProblemType(
        "method-not-allowed",
        405,
        "The route does not have this method",
        "The `Allow` header lists the methods that the route has.",
    ),
    ProblemType(
        "not-acceptable",
        406,
        "None of the accepted media types can be given",
        "The `Accept` header names no media type that this route can answer with.",
    ),
    ProblemType(
        "bad-request",
        400,
        "The request cannot be read",
        "The request breaks a rule of HTTP or of a header that this route reads.",
    ),
    ProblemType(
        "not-implemented",
        501,
        "The request asks for what this server does not do",
        "The method is none that any route has, such as CONNECT, or the body has a transfer coding"
        " besides `chunked`. The connection is closed.",
    ),
    ProblemType(
        "http-version",
        505,
        "The version of HTTP is not supported",
        "The server speaks HTTP/1.1, and HTTP/1.0 to those who do. The connection is closed.",
    ),
    ProblemType(
        "range",
        416,
        "The range lies outside of the file",
        "`Content-Range` says how many bytes the file has.",
    ),
    ProblemType(
        "cursor",
        400,
        "The cursor is not valid",
        "A cursor must be sent back exactly as the previous page's `next_cursor` gave it, to the"
        " same route.",
    ),
    ProblemType(
        "stopping",
        503,
        "The server stops",
        "The server is being stopped or restarted and did not finish the request. Send it again.",
        retry_after_s=5,
    ),
    ProblemType(
        "internal",
        500,
        "Internal error",
        "A defect of the service. The log holds the details under the request id, which is the"
        " problem's `instance`.",
    ),
)

_BODIES = (
    ProblemType(
        "body-empty",
        400,
        "The body is empty",
        "The route needs a body. Check the length that was sent.",
    ),
    ProblemType(
        "body-timeout",
        408,
        "The body came too slowly",
        "The server stopped waiting for the rest of the request's body.",
    ),
    ProblemType(
        "header-timeout",
        408,
        "The headers came too slowly",
        "The server stopped waiting for the request's headers. The connection is closed.",
    ),
    ProblemType(
        "media-type",
        415,
        "The media type is not supported",
        "The `Content-Type` is not one that the route reads, or the content is not of that type."
        " The route's documentation lists the types.",
    ),
    ProblemType(
        "content-encoding",
        415,
        "The content encoding is not supported",
        "Bodies may be sent plain or with `Content-Encoding: gzip` or `zstd`, one layer of it.",
    ),
    ProblemType(
        "content-decoding",
        400,
        "The body is not valid in its content encoding",
        "The gzip or Zstandard data are corrupt or cut off, need a window of more than 8 MiB, are made"
        " of very many small members or frames, or hold hardly any data.",
    ),
    ProblemType(
        "multipart",
        400,
        "The multipart body is not valid",
        "A multipart upload has one part named `file`, with short headers, and a closing boundary.",
    ),
    ProblemType(
        "json-syntax",
        400,
        "The body is not JSON",
        "The body breaks the grammar of RFC 8259. Comments, trailing commas and single quotes are"
        " not JSON.",
    ),
    ProblemType(
        "json-encoding",
        400,
        "The JSON is not plain UTF-8",
        "JSON must be UTF-8 without a byte order mark.",
    ),
    ProblemType(
        "json-nonfinite",
        400,
        "NaN and Infinity are not JSON",
        "RFC 8259 has no literals for non-finite numbers. Send null where it is allowed, or a"
        " binary format.",
    ),
    ProblemType(
        "json-depth",
        400,
        "The JSON is nested too deeply",
        "No value of this service needs more than a few levels.",
    ),
    ProblemType(
        "json-number",
        400,
        "A number in the JSON is too long",
        "A number of this many digits fits no field of this service.",
    ),
    ProblemType(
        "json-duplicate-key",
        400,
        "An object of the JSON has a key twice",
        "Which of the two is meant cannot be known, so neither is used.",
    ),
    ProblemType(
        "value-nonfinite",
        422,
        "A number is not finite",
        "A number is too large for a 64-bit float, or is not finite where it must be.",
    ),
)

_LIMITS = (
    ProblemType(
        "limit-body",
        413,
        "The body is too large",
        "The body passes the route's limit of bytes. The connection is closed.",
    ),
    ProblemType(
        "limit-decoded-bytes",
        413,
        "The decoded body is too large",
        "The decompressed body passes the limit of bytes, or expands suspiciously much.",
    ),
    ProblemType(
        "limit-headers",
        431,
        "The headers are too large",
        "The path and the headers together pass the limit. The connection is closed.",
    ),
    ProblemType(
        "limit-rows",
        413,
        "Too many rows",
        "The table or the batch has more rows than this server allows.",
    ),
    ProblemType(
        "limit-samples",
        413,
        "Too many samples",
        "One request may draw a limited number of samples; send several, with different seeds.",
    ),
    ProblemType(
        "limit-columns",
        422,
        "Too many columns",
        "The table has more columns than this server allows.",
    ),
    ProblemType(
        "limit-metadata",
        422,
        "The file has too much metadata",
        "The file's own description (row groups, key-value pairs, headers) is unreasonably large.",
    ),
    ProblemType(
        "limit-parameters",
        422,
        "The flow is too large",
        "The flow would have more parameters or layers, or take more operations one after another,"
        " than this server allows; `errors` names the field to lower.",
    ),
    ProblemType(
        "limit-memory",
        422,
        "The job or the model needs too much memory",
        "The estimate of what the training, or the loaded model, takes passes this server's limit;"
        " `errors` names the field to lower.",
    ),
    ProblemType(
        "limit-queued-jobs",
        429,
        "Too many jobs are waiting",
        "The project's queue is full. Wait until some jobs have run.",
        retry_after_s=30,
    ),
    ProblemType(
        "rate-limited",
        429,
        "Too many requests",
        "The key may ask only so often. `Retry-After` says when the next request is served.",
        retry_after_s=1,
    ),
    ProblemType(
        "limit-aliases",
        409,
        "The model has too many aliases",
        "A model may have so many aliases. Delete one that is not needed, or move it.",
    ),
    ProblemType(
        "limit-open-requests",
        429,
        "Too many requests at once",
        "The key, or the keys of its project together, have so many requests open that no further"
        " one is served. Wait for answers, end event streams, and send fewer requests at a time.",
        retry_after_s=1,
    ),
    ProblemType(
        "quota-storage",
        507,
        "The project's storage is full",
        "Datasets, weights of models, checkpoints, results of bulk jobs and the rows that describe"
        " them count, and unfinished jobs with the most that they may come to store. Nothing was"
        " stored; delete datasets or results that are not needed, or cancel jobs.",
    ),
    ProblemType(
        "overloaded",
        503,
        "The server is busy",
        "More requests are waiting than the server can answer in time. Try again.",
        retry_after_s=1,
    ),
    ProblemType(
        "storage-full",
        507,
        "The storage is full",
        "Nothing was stored. Reading still works.",
    ),
)

PROBLEM_TYPES: dict[str, ProblemType] = {
    problem.slug: problem for problem in (*_GENERAL, *_BODIES, *_LIMITS, *DATA_PROBLEMS)
}
