"""The service's own HTML pages: no inline script or style, nothing from elsewhere, all escaped.

Their links are relative, so that they hold below any path of a proxy.
"""

import json
from dataclasses import asdict
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import fastapi_offline
from starlette.responses import HTMLResponse

from app.auth.identity import SignIn

STATIC_FOLDER = Path(__file__).parent / "static"
DOCS_FOLDER = Path(fastapi_offline.__file__).parent / "static"

_PAGE_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"
_WEB_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'; connect-src 'self'"
)
# Swagger UI writes style attributes, and shows pictures that it fetched as blobs.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self';"
    " frame-ancestors 'none'"
)


def page(title: str, body: str, *, root: str) -> HTMLResponse:
    """Return a page in the style of the service.

    Args:
        title: Title as plain text.
        body: Body as HTML, whose texts must be escaped.
        root: Root of the service as a reference that is relative to the page, `./` or `../`.
    """
    style = f'<link rel="stylesheet" href="{root}static/site.css">'
    return _html(title, style, f"<main>{body}</main>", root=root)


def web_page(title: str, sign_in: SignIn | None) -> HTMLResponse:
    """Return the web page, whose modules draw all that one sees.

    Args:
        title: Title as plain text.
        sign_in: How the page signs somebody in; None: it asks for a key.
    """
    head, policy = _page_files("static/"), _WEB_POLICY
    if sign_in is not None:
        head += f'<meta name="sign-in" content="{escape(json.dumps(asdict(sign_in)))}">'
        asked = urlsplit(sign_in.token_endpoint)
        policy += f" {asked.scheme}://{asked.netloc}"
    body = (
        '<div id="app"><noscript><main><h1>densityd</h1><p>This page needs JavaScript. Without it,'
        ' <a href="docs">Swagger UI</a> needs it too; the API answers curl.</p></main></noscript></div>'
    )
    return _html(title, head, body, policy=policy)


@cache
def _page_files(root: str) -> str:
    """Return the styles and the scripts of the page: all modules, so that none waits for another."""
    folder = STATIC_FOLDER / "page"
    modules = [*sorted((folder / "vendor").glob("*.js")), *sorted((folder / "js").glob("*.js"))]
    paths = [path.relative_to(STATIC_FOLDER).as_posix() for path in modules]
    return (
        f'<link rel="stylesheet" href="{root}page/vendor/uplot.css">'
        f'<link rel="stylesheet" href="{root}page/app.css">'
        f'<script type="module" src="{root}page/js/main.js"></script>'
    ) + "".join(f'<link rel="modulepreload" href="{root}{path}">' for path in paths)


def swagger_ui(title: str) -> HTMLResponse:
    """Return the page of Swagger UI."""
    head = (
        '<link rel="stylesheet" href="static/docs/swagger-ui.css">'
        '<link rel="stylesheet" href="static/swagger.css">'
    )
    body = (
        '<div id="swagger-ui"></div><script src="static/docs/swagger-ui-bundle.js"></script>'
        '<script src="static/swagger.js"></script>'
    )
    return _html(title, head, body, policy=_DOCS_POLICY)


def _html(
    title: str, head: str, body: str, *, policy: str = _PAGE_POLICY, root: str = "./"
) -> HTMLResponse:
    document = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="{root}static/icon.svg">{head}</head>'
        f"<body>{body}</body></html>"
    )
    return HTMLResponse(document, headers={"Content-Security-Policy": policy})
