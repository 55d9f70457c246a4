"""The problems of datasets, jobs, models and what stores them."""

from app.problems.problem_type import ProblemType

_DATASETS = (
    ProblemType(
        "dataset-empty",
        422,
        "The file has no rows",
        "The file is empty (400), or has a header but no rows (422).",
    ),
    ProblemType(
        "dataset-too-small",
        422,
        "The table has too few rows",
        "One row has no spread, so no density can be fitted.",
    ),
    ProblemType(
        "dataset-too-large",
        413,
        "The table is too large",
        "The unpacked table passes this server's limit, whatever the size of the file.",
    ),
    ProblemType(
        "dataset-parse",
        422,
        "The file cannot be parsed",
        "The file is not well-formed. For CSV, `delimiter` and `header` tell how to read it.",
    ),
    ProblemType(
        "dataset-encoding",
        422,
        "The text is not UTF-8",
        "CSV files must be UTF-8; a byte order mark is accepted.",
    ),
    ProblemType(
        "dataset-dtype",
        422,
        "A column is not numeric",
        "Columns hold real numbers: floats or integers. Text, dates, booleans, complex and nested"
        " values are not accepted.",
    ),
    ProblemType(
        "dataset-shape",
        422,
        "The array is not a table",
        "A table has two dimensions: rows and columns.",
    ),
    ProblemType(
        "dataset-truncated",
        422,
        "The file is cut off",
        "The file holds fewer bytes than its header promises.",
    ),
    ProblemType(
        "dataset-pickle-forbidden",
        422,
        "The file holds pickled objects",
        "Unpickling runs code from the file, so it is never done.",
    ),
    ProblemType(
        "dataset-nonfinite",
        422,
        "The table has missing or non-finite values",
        "An empty cell, NaN or an infinity. With `missing=drop` such rows are left out.",
    ),
    ProblemType(
        "dataset-range",
        422,
        "A column's values are too large",
        "The column's mean or standard deviation overflows a 64-bit float; rescale it.",
    ),
    ProblemType(
        "dataset-constant-column",
        422,
        "A column is constant",
        "A constant column has no density. Leave it out, or upload with `constant=drop`.",
    ),
    ProblemType(
        "dataset-duplicate-columns",
        422,
        "Two columns have the same name",
        "Column names must be unique.",
    ),
    ProblemType(
        "column-name",
        422,
        "A column name is not usable",
        "Names have 1 to 128 characters, none of them a control or a text-direction character.",
    ),
    ProblemType(
        "dataset-in-use",
        409,
        "A job needs the dataset",
        "The dataset can be deleted once every job that uses it has ended.",
    ),
)

_JOBS_AND_MODELS = (
    ProblemType(
        "dimension-unsupported",
        422,
        "The flow cannot model this number of columns",
        "A coupling flow, for instance, needs at least two columns.",
    ),
    ProblemType(
        "encoder-without-context",
        422,
        "The flow encodes a context that it does not have",
        "An encoder needs `context_columns`.",
    ),
    ProblemType(
        "preprocessing-unsuitable",
        422,
        "The preprocessing or the flow does not suit the values of a column",
        "`dequantise` with levels needs whole numbers from 0 to levels - 1, `logit` values from 0"
        " to 1, and a Bernoulli MADE columns of 0 and 1 without preprocessing.",
    ),
    ProblemType(
        "columns-overlap",
        422,
        "Columns that must be apart are not",
        "A column is modelled or part of the context, never both, and one at least must be"
        " modelled. In a regression it is the response or explains it; `intercept` is taken.",
    ),
    ProblemType(
        "context-mismatch",
        422,
        "The context does not fit the model",
        "A conditional model needs its context columns: one row for all samples or one for each."
        " Other models have none.",
    ),
    ProblemType(
        "model-without-noise",
        422,
        "The model has no map between data and noise",
        "Densities of 0 and 1, and averages over several masks, give densities and samples only.",
    ),
    ProblemType(
        "score-unavailable",
        422,
        "The model has no calibrated score",
        "Only models that were trained on data by a version that keeps held-out log densities have"
        " one: `held_out` of the version is not null. `log_prob` works for all.",
    ),
    ProblemType(
        "formula",
        422,
        "The formula cannot be read",
        "`position` is the first character of `target.log_density` that does not fit, counted from"
        " 1; `errors` says what it should be and shows the place. The grammar is in the"
        " documentation of variational inference.",
    ),
    ProblemType(
        "flow-unsuitable",
        422,
        "The flow cannot be fitted to a target",
        "Fitting to a density needs a flow that maps noise to rows with gradients: not a MADE of"
        " 0 and 1, nor one of several masks.",
    ),
    ProblemType(
        "response-not-binary",
        422,
        "The response is not 0 or 1",
        "A logistic regression explains a column that holds 0 and 1 only.",
    ),
    ProblemType(
        "dimension-mismatch",
        422,
        "The rows have the wrong number of columns",
        "Each row must have one value for each column of the model.",
    ),
    ProblemType(
        "batch-empty",
        422,
        "The batch has no rows",
        "Send at least one row.",
    ),
    ProblemType(
        "batch-shape",
        422,
        "The rows are not a table",
        "A batch is a list of rows of the same length, or an array with two dimensions.",
    ),
    ProblemType(
        "batch-value",
        422,
        "A value is not a number",
        "Every value of a row, and the type of every column, must be a number; there is no"
        " conversion from text, dictionaries or booleans.",
    ),
    ProblemType(
        "columns-mismatch",
        422,
        "The rows have other columns than the model",
        "Where columns have names, they must be exactly the model's, in any order.",
    ),
    ProblemType(
        "array-parse",
        422,
        "The rows cannot be read in their format",
        "The npy header is malformed or promises more or fewer bytes than came; the CSV, the Arrow"
        " stream or the Parquet file is damaged, cut off or not well-formed.",
    ),
    ProblemType(
        "array-dtype",
        422,
        "The array does not hold real numbers",
        "Arrays must be of a float or an integer type.",
    ),
    ProblemType(
        "unknown-column",
        422,
        "No such column",
        "A column that the request names is not in the dataset or the model.",
    ),
    ProblemType(
        "duplicate-column",
        422,
        "A column is named twice",
        "Each column can be modelled once.",
    ),
    ProblemType(
        "split-invalid",
        422,
        "The split is not possible",
        "The parts of the split must leave something to each other.",
    ),
    ProblemType(
        "split-too-small",
        422,
        "A part of the split has too few rows",
        "Upload more rows, or give that part a larger share.",
    ),
    ProblemType(
        "checkpoint-invalid",
        422,
        "The file is not a usable model",
        "A model is imported from a safetensors file as `GET .../checkpoint` gives it: whole, with"
        " the description of its flow in the header, and finite weights that fit it.",
    ),
    ProblemType(
        "plot-unavailable",
        422,
        "The version has no such picture",
        "What the picture would show is not there: the kind does not suit the model, or its dataset"
        " or job is not here.",
    ),
    ProblemType(
        "limit-result",
        422,
        "The result would be too large",
        "The result of a bulk job passes this server's limit. Ask for fewer rows, or do it in"
        " several jobs.",
    ),
    ProblemType(
        "job-without-result",
        404,
        "The job makes no file",
        "Only scoring and sampling jobs make a file; training and variational inference make a"
        " version of a model.",
    ),
    ProblemType(
        "result-not-ready",
        409,
        "The result is not there",
        "The job has not succeeded yet: wait for it, or resume it if it has failed or was"
        " cancelled.",
    ),
    ProblemType(
        "result-deleted",
        410,
        "The result was deleted",
        "Somebody has deleted the file. The job's request, seed included, makes it again.",
    ),
    ProblemType(
        "job-final",
        409,
        "The job has ended",
        "A job that succeeded or failed cannot be cancelled.",
    ),
    ProblemType(
        "job-not-resumable",
        409,
        "The job cannot be resumed",
        "Only a cancelled or failed job can be resumed.",
    ),
    ProblemType(
        "precondition",
        412,
        "Somebody changed it in the meantime",
        "`If-Match` or `If-None-Match` does not hold for the present state. Read it again.",
    ),
    ProblemType(
        "idempotency-key-reused",
        422,
        "The idempotency key was used for another request",
        "A key belongs to one request; use a fresh one for a new request.",
    ),
    ProblemType(
        "conflict",
        409,
        "The present state forbids this",
        "The thing exists, but its state does not allow the request.",
    ),
    ProblemType(
        "artifact-missing",
        503,
        "A stored file is missing",
        "The row is there, its file is not. The operator can run `densityd doctor`.",
        retry_after_s=60,
    ),
    ProblemType(
        "artifact-corrupt",
        503,
        "A stored file is corrupt",
        "The file does not match its hash, so it is not used. The operator can run"
        " `densityd doctor`.",
        retry_after_s=60,
    ),
    ProblemType(
        "artifact-mismatch",
        503,
        "A stored file is another one's",
        "The file is not that of the model that names it, so it is not used. The operator can run"
        " `densityd doctor`.",
        retry_after_s=60,
    ),
    ProblemType(
        "storage-unavailable",
        503,
        "The storage cannot be used",
        "The blob store cannot be read or written now.",
        retry_after_s=5,
    ),
    ProblemType(
        "db-busy",
        503,
        "The database is busy",
        "Others held the database for too long; the same request may succeed in a moment.",
        retry_after_s=1,
    ),
    ProblemType(
        "db-unavailable",
        503,
        "The database cannot be reached",
        "Nothing was changed. The service recovers by itself when the database is back.",
        retry_after_s=5,
    ),
)

DATA_PROBLEMS = (*_DATASETS, *_JOBS_AND_MODELS)
