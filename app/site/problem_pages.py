"""Pages that explain the service's problem types."""

from html import escape
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import HTMLResponse

from app.problems.problem import Problem, problem_responses
from app.problems.types import PROBLEM_TYPES, ProblemType
from app.root_path import rooted
from app.site.html import page

router = APIRouter(prefix="/problems", tags=["problems"])


@router.get(
    "",
    operation_id="list_problems",
    summary="List the problem types",
    response_description="HTML page of all problem types.",
    response_class=HTMLResponse,
)
async def list_problems() -> HTMLResponse:
    """Return a page with every problem type that the service reports."""
    rows = "".join(
        f'<tr><td>{kind.status}</td><td><a href=".{kind.uri}">{escape(kind.slug)}</a></td>'
        f"<td>{escape(kind.title)}</td></tr>"
        for kind in sorted(PROBLEM_TYPES.values(), key=lambda kind: (kind.status, kind.slug))
    )
    return page(
        "Problems - densityd",
        "<h1>Problems</h1><p>Every error response has one of these types.</p>"
        f"<table><tr><th>Status</th><th>Type</th><th>Meaning</th></tr>{rows}</table>",
        root="./",
    )


@router.get(
    "/{slug}",
    operation_id="get_problem",
    summary="Explain a problem type",
    response_description="HTML page of the problem type.",
    response_class=HTMLResponse,
    responses=problem_responses("not-found"),
)
async def get_problem(
    slug: Annotated[
        str,
        Path(
            pattern="^[a-z-]{1,64}$",
            description="Last part of a problem's `type`.",
            examples=["dataset-parse"],
        ),
    ],
) -> HTMLResponse:
    """Return the page that a problem's `type` points to."""
    kind = PROBLEM_TYPES.get(slug)
    if kind is None:
        raise Problem("not-found", "There is no such problem type.")
    return _problem_page(kind)


def _problem_page(kind: ProblemType) -> HTMLResponse:
    return page(
        f"{kind.title} - densityd",
        f"<h1>{escape(kind.title)}</h1><p><code>{rooted(kind.uri)}</code>, usually with status"
        f" {kind.status}.</p><p>{_prose(kind.explanation)}</p>"
        '<p><a href="../problems">All problem types</a></p>',
        root="../",
    )


def _prose(text: str) -> str:
    """Return escaped text, with code between backquotes."""
    parts = escape(text).split("`")
    return "".join(
        f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts)
    )
