"""The audit explorer: one static page with its script and style, served from here and from nowhere else."""

from pathlib import Path
from typing import Final

from litestar import Response

from service.api.methods import get

_WEB: Final = Path(__file__).parent.parent / "web"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@get("/", include_in_schema=False)
async def explorer_page() -> Response[bytes]:
    """Return the page."""
    return _file("explorer.html", "text/html")


@get("/explorer.js", include_in_schema=False)
async def explorer_script() -> Response[bytes]:
    """Return the page's script."""
    return _file("explorer.js", "text/javascript")


@get("/explorer.css", include_in_schema=False)
async def explorer_style() -> Response[bytes]:
    """Return the page's style."""
    return _file("explorer.css", "text/css")


def _file(name: str, media_type: str) -> Response[bytes]:
    return Response(_FILES[name], media_type=media_type, headers=_HEADERS)


_FILES: Final = {path.name: path.read_bytes() for path in sorted(_WEB.glob("explorer.*"))}
