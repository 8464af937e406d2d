"""The routes of bytes: the inputs of a job and the artifacts of its runs."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final
from urllib.parse import quote, unquote

from litestar import Response, put
from litestar.response import Stream

from service.api.fields import ArtifactNamePath, IfMatch, InputNamePath, JobIdPath, RunPath, sends
from service.api.job_answers import ArtifactsAnswer, InputAnswer, artifact_answer
from service.api.problems import refusals
from service.api.request import ApiRequest, Jobs, Operations, in_progress, url_path
from service.api.routing import BYTES, EVENT, get
from service.api.texts import is_input_name, version_of
from service.errors import InvalidRequestError, NotFoundError
from service.operations.base import naming
from service.roles import OPERATOR, has_one
from telemetry import names

PART_BYTES: Final = 256 * 1024
"""How many bytes of an artifact are in memory at a time. SQLite reads the whole artifact for each part."""
PIECE_BYTES: Final = 64 * 1024
"""The most bytes that are handed to the connection at a time."""

_MAX_RUN: Final = 1_000_000_000


@put(
    "/v1/jobs/{job_id:str}/inputs/{name:path}",
    opt={EVENT: names.EVENT_INPUT_WRITE},
    response_headers=sends("ETag"),
    responses=refusals(403, 404, 409, 412, 413, 415),
)
async def put_input(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, name: InputNamePath, if_match: IfMatch = None
) -> Response[InputAnswer]:
    """Store or replace an input of a job that has no draft yet; the body is its bytes."""
    # As it was sent: the router drops empty segments, and `inputs//a` is not the input `a`.
    name = unquote(url_path(request.scope).partition("/inputs/")[2])
    if not is_input_name(name):
        raise InvalidRequestError("an input's name is 1 to 128 of A-Z a-z 0-9 . _ -, without .. or a leading dot")
    version, payload = version_of(if_match), b""
    # Others are refused below, on record and without their bytes.
    if has_one(request.exchange.credential.roles, OPERATOR):
        request.parts.uploads.admit(in_progress(request), _declared(request))
        payload = await request.body()
    done = await operations.write_input(job_id, name, payload, version)
    job = done.value
    answer = InputAnswer(
        name=name,
        size=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
        job_id=job.job_id,
        version=job.version,
        links={"job": f"/v1/jobs/{job.job_id}", **request.trace_link(job.trace_id)},
        audit=done.receipt,
    )
    return Response(answer, headers={"ETag": f'"{job.version}"'})


@get("/v1/jobs/{job_id:str}/runs/{number:int}/artifacts", responses=refusals(403, 404))
async def list_artifacts(jobs: Jobs, job_id: JobIdPath, number: RunPath) -> ArtifactsAnswer:
    """List the artifacts of a run, by name."""
    folder = f"/v1/jobs/{job_id}/runs/{number}/artifacts"
    return ArtifactsAnswer([artifact_answer(content, folder) for content in await jobs.artifacts(job_id, number)])


@get(
    "/v1/jobs/{job_id:str}/runs/{number:int}/artifacts/{name:path}",
    opt={EVENT: names.EVENT_ARTIFACT_READ},
    media_type=BYTES,
    response_description="The bytes.",
    response_headers=sends("Content-Disposition", "ETag", "Repr-Digest"),
    responses=refusals(403, 404),
)
async def get_artifact(
    request: ApiRequest, operations: Operations, job_id: JobIdPath, number: RunPath, name: ArtifactNamePath
) -> Response[bytes] | Stream:
    """Return the bytes of an artifact, after the read is recorded."""
    # As it was sent, like the name of an input; clients may encode the slashes of a name.
    name = unquote(url_path(request.scope).partition("/artifacts/")[2])
    reads = request.parts.reads
    known = await asyncio.to_thread(reads.artifacts, job_id, number) if 0 < number < _MAX_RUN else ()
    content = next((content for content in known if content.name == name), None)
    if content is not None and content.size > PART_BYTES:
        request.parts.downloads.admit(in_progress(request))
    done = await operations.read_artifact(job_id, number, content)

    loop, threads = asyncio.get_running_loop(), request.parts.bulk_threads

    async def part(begin: int) -> bytes | None:
        return await loop.run_in_executor(threads, reads.artifact_part, job_id, number, name, begin, PART_BYTES)

    with naming(done.receipt):
        first = await part(0)
        if content is None or first is None:
            raise NotFoundError("there is no such artifact")
    file_name = quote(name.rpartition("/")[2], safe="")
    digest = base64.b64encode(bytes.fromhex(content.sha256)).decode()
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{file_name}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "ETag": f'"{content.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
    }
    if content.size <= PART_BYTES:
        return Response(first, headers=headers)
    return Stream(_parts(first, content.size, part), headers={**headers, "Content-Length": str(content.size)})


async def _parts(first: bytes, size: int, part: Callable[[int], Awaitable[bytes | None]]) -> AsyncGenerator[bytes]:
    for begin in range(0, size, PART_BYTES):
        read = await part(begin) or b"" if begin else first
        for at in range(0, len(read), PIECE_BYTES):
            yield read[at : at + PIECE_BYTES]


def _declared(request: ApiRequest) -> int:
    """Return how many bytes of a body may come to be in memory."""
    most = request.parts.settings.max_input_bytes
    return min(most, int(request.headers.get("content-length", most)))
