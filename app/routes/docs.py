"""The start page, Swagger UI and ReDoc, all without the internet."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from app.pages import DOCS_FOLDER, STATIC_FOLDER, page, redoc, redoc_bundle, swagger_ui

router = APIRouter(include_in_schema=False)


@router.get("/static/docs/redoc.standalone.js")
def redoc_script() -> Response:
    """ReDoc without the one picture that it would load from elsewhere."""
    headers = {"Cache-Control": "max-age=3600"}
    return Response(redoc_bundle(), media_type="text/javascript", headers=headers)


router.mount("/static/docs", StaticFiles(directory=DOCS_FOLDER), name="docs-assets")
router.mount("/static", StaticFiles(directory=STATIC_FOLDER), name="static")

_LINKS = (
    ("/docs", "Swagger UI", "every operation, to try in the browser"),
    ("/redoc", "ReDoc", "the same, to read"),
    ("/openapi.json", "OpenAPI document", "for client generators"),
    ("/problems", "Problems", "what error messages mean"),
    ("/readyz", "Readiness", "what the service depends on, and how it is"),
    ("/metrics", "Metrics", "for Prometheus"),
)


@router.get("/")
async def start_page(request: Request) -> HTMLResponse:
    """Links to what the service offers."""
    links = "".join(f'<li><a href="{url}">{name}</a>: {what}</li>' for url, name, what in _LINKS)
    return page(
        "densityd",
        f"<h1>densityd {request.app.version}</h1><p>Density estimation with normalising flows.</p>"
        f"<ul>{links}</ul>",
    )


@router.get("/docs")
async def swagger_ui_page() -> HTMLResponse:
    """Swagger UI."""
    return swagger_ui("densityd - Swagger UI")


@router.get("/redoc")
async def redoc_page() -> HTMLResponse:
    """ReDoc."""
    return redoc("densityd - ReDoc")
