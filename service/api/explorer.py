"""The audit explorer: one static page with its script and style, served from here and from nowhere else."""

from pathlib import Path
from typing import Final

from litestar import Response

from service.api.request import ApiRequest
from service.api.routing import get

_WEB: Final = Path(__file__).parent.parent / "web"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FILES: Final = {
    f"/{name}": ((_WEB / f"explorer{ending}").read_bytes(), media_type)
    for name, ending, media_type in (
        ("", ".html", "text/html"),
        ("explorer.js", ".js", "text/javascript"),
        ("explorer.css", ".css", "text/css"),
    )
}


@get(list(_FILES), include_in_schema=False)
async def explorer(request: ApiRequest) -> Response[bytes]:
    """Return the page, its script or its style."""
    content, media_type = _FILES[request.scope["path_template"]]
    return Response(content, media_type=media_type, headers=_HEADERS)
