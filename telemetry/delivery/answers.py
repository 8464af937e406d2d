"""What a sink answers to a request, in the terms in which the sender decides; and what a sink is."""

from typing import Final, Protocol, TypeAlias

import msgspec

BAD_REQUEST: Final = 400
CONTENT_TOO_LARGE: Final = 413


class Accepted(msgspec.Struct, frozen=True):
    """The whole request was acknowledged, nothing in it rejected; `warning` is what the sink added, if anything."""

    warning: str = ""

    @property
    def error_type(self) -> str | None:
        """None: nothing went wrong."""
        return None


class Rejected(msgspec.Struct, frozen=True):
    """The request was taken but for `count` of its records, and the sink does not say which."""

    count: int
    message: str

    @property
    def error_type(self) -> str:
        """The class of the failure, for metrics."""
        return "partial_success"

    def __str__(self) -> str:
        return f"{self.count} rejected: {self.message}" if self.message else f"{self.count} rejected"


class Refused(msgspec.Struct, frozen=True):
    """The sink answered that it does not take the request now, or not at all.

    `status` is that of HTTP, also for gRPC where the two agree; 0 for an answer that means nothing to OTLP.
    """

    status: int
    error_type: str
    message: str
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return self.message


class Unreachable(msgspec.Struct, frozen=True):
    """There was no answer: whether the request arrived cannot be told."""

    error_type: str
    message: str

    def __str__(self) -> str:
        return self.message


Answer: TypeAlias = Accepted | Rejected | Refused | Unreachable


class Sink(Protocol):
    """Where records are delivered."""

    @property
    def address(self) -> str:
        """Where it is, for people; holds no secret."""
        ...

    def send(self, request: bytes) -> Answer:
        """Deliver one serialized `ExportLogsServiceRequest` and return the answer.

        It takes no longer than the sink's timeout, and raises nothing: what goes wrong is an answer too. Not to be
        called from two threads at once.
        """
        ...

    def close(self) -> None:
        """Give up connections and files."""
        ...


def blames_records(answer: Answer) -> bool:
    """True when the answer may be about a record in the request rather than about the sink itself."""
    if isinstance(answer, Refused):
        return answer.status in {BAD_REQUEST, CONTENT_TOO_LARGE}
    return isinstance(answer, Rejected)
