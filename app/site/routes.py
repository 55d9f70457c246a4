"""The start page and Swagger UI, both without the internet, and the documentation site under `/guide`."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app.dependencies import StateDep
from app.problems.problem import Problem
from app.site.html import DOCS_FOLDER, STATIC_FOLDER, swagger_ui, web_page

GUIDE_FOLDER = Path(__file__).parent / "guide"
"""Folder of the documentation site, as `make docs` built it."""

_DEEPEST = 16
"""Folders of the documentation site within each other that are looked up."""

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)

_STATIC, _DOCS = StaticFiles(directory=STATIC_FOLDER), StaticFiles(directory=DOCS_FOLDER)

router = APIRouter(include_in_schema=False)


# Routes, no mounts: the router answers wrong methods for them as for all else.
@router.get("/static/docs/{path:path}")
async def docs_file(request: Request, path: str) -> Response:
    """Serve a file of Swagger UI."""
    return await _file(_DOCS, path, request)


@router.get("/static/{path:path}")
async def static_file(request: Request, path: str) -> Response:
    """Serve a file of our own pages."""
    return await _file(_STATIC, path, request)


async def _file(files: StaticFiles, path: str, request: Request) -> Response:
    response = await files.get_response(path, request.scope)
    response.headers["Cache-Control"] = "no-cache"  # asked for again by its ETag
    return response


@router.get("/")
async def start_page(state: StateDep) -> HTMLResponse:
    """Return the web page."""
    return web_page("densityd", await state.callers.sign_in())


@router.get("/docs")
async def swagger_ui_page() -> HTMLResponse:
    """Swagger UI."""
    return swagger_ui("densityd - Swagger UI")


def guide_routes(folder: Path) -> APIRouter:
    """Return the routes of a documentation site.

    Args:
        folder: Folder of the pages; the routes answer 404 while it is not there.
    """
    router = APIRouter(include_in_schema=False)
    files = StaticFiles(directory=folder, check_dir=False)

    @router.get("/guide")
    async def guide() -> RedirectResponse:
        """Lead to the first page, whose links are relative."""
        return RedirectResponse("guide/")

    @router.get("/guide/{path:path}")
    async def guide_file(request: Request, path: str) -> Response:
        """Serve a page or one of its files."""
        if path.count("/") > _DEEPEST:  # each folder of a path is looked up
            raise Problem("not-found", "There is no such file.")
        policy = _policy(folder)
        response = await files.get_response(path or "index.html", request.scope)
        response.headers["Content-Security-Policy"] = policy
        return response

    return router


@cache
def _policy(folder: Path) -> str:
    """Return a policy that allows the inline scripts of the pages, which are the theme's, and no others."""
    pages = [path.read_text() for path in folder.glob("*.html")]
    if not pages:
        raise Problem("not-found", "The guide was not built; `make docs` builds it.")
    scripts = {script for page in pages for script in re.findall(_INLINE, page)}
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in sorted(scripts)]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
