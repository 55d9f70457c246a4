"""The documentation site, as `make docs` built it, under `/guide`."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app.problems.problem import Problem

GUIDE_FOLDER = Path(__file__).parent / "guide"

_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def guide_routes(folder: Path) -> APIRouter:
    """Return the routes of a site.

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
