"""What a database promises of the commits that it acknowledged."""

from collections.abc import Sequence

import msgspec


class Durability(msgspec.Struct, frozen=True):
    """What an acknowledged commit survives, and which settings of the database break that promise."""

    promise: str
    problems: Sequence[str] = ()
