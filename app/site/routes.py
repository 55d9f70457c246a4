"""The start page, Swagger UI and ReDoc, all without the internet."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from app.site.html import DOCS, STATIC, redoc, redoc_bundle, swagger_ui, web_page

router = APIRouter(include_in_schema=False)


@router.get("/static/docs/redoc.standalone.js")
def redoc_script() -> Response:
    """ReDoc without the one picture that it would load from elsewhere."""
    headers = {"Cache-Control": "max-age=3600"}
    return Response(redoc_bundle(), media_type="text/javascript", headers=headers)


# Routes, no mounts: the router answers wrong methods for them as for all else.
@router.get("/static/docs/{path:path}")
async def docs_file(request: Request, path: str) -> Response:
    """Serve a file of Swagger UI or ReDoc."""
    return await DOCS.respond(path, request)


@router.get("/static/{path:path}")
async def static_file(request: Request, path: str) -> Response:
    """Serve a file of our own pages."""
    return await STATIC.respond(path, request)


@router.get("/")
async def start_page() -> HTMLResponse:
    """Return the web page."""
    return web_page("densityd")


@router.get("/docs")
async def swagger_ui_page() -> HTMLResponse:
    """Swagger UI."""
    return swagger_ui("densityd - Swagger UI")


@router.get("/redoc")
async def redoc_page() -> HTMLResponse:
    """ReDoc."""
    return redoc("densityd - ReDoc")
