"""The answers of a sink to a request, in the terms that the sender decides by; and the protocol of a sink."""

from typing import ClassVar, Final, Protocol, TypeAlias

import msgspec

BAD_REQUEST: Final = 400
CONTENT_TOO_LARGE: Final = 413


class Accepted(msgspec.Struct, frozen=True):
    """The sink acknowledged the whole request and rejected nothing; `warning` is a text that it added, or empty."""

    error_type: ClassVar[None] = None

    warning: str = ""


class Rejected(msgspec.Struct, frozen=True):
    """The sink took the request except for `count` of its records, and does not say which."""

    error_type: ClassVar[str] = "partial_success"

    count: int
    message: str

    def __str__(self) -> str:
        return f"{self.count} rejected: {self.message}" if self.message else f"{self.count} rejected"


class Refused(msgspec.Struct, frozen=True):
    """The sink answered that it does not take the request, now or ever.

    `status` is the status of HTTP, or for gRPC the HTTP status of the same meaning. It is 0 for an answer that OTLP
    does not define.
    """

    status: int
    error_type: str
    message: str
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return self.message


class Unreachable(msgspec.Struct, frozen=True):
    """There was no answer: the request may have arrived, or not."""

    error_type: str
    message: str

    def __str__(self) -> str:
        return self.message


Answer: TypeAlias = Accepted | Rejected | Refused | Unreachable


class Sink(Protocol):
    """The place that records are delivered to."""

    @property
    def address(self) -> str:
        """Its address, for people; it holds no secret."""
        ...

    def send(self, request: bytes) -> Answer:
        """Deliver one serialized `ExportLogsServiceRequest` and return the answer.

        It takes no longer than the sink's timeout, and raises nothing: a failure is an answer too. Two threads must not
        call it at the same time.
        """
        ...

    def close(self) -> None:
        """Close connections and files."""
        ...


def blames_records(answer: Answer) -> bool:
    """Return whether the answer may be about a record in the request. If not, it is about the sink itself."""
    if isinstance(answer, Refused):
        return answer.status in {BAD_REQUEST, CONTENT_TOO_LARGE}
    return isinstance(answer, Rejected)
