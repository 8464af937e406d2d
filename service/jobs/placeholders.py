"""`{parameter}` inside an argument of a command: its grammar, apart from what templates and plans do with it.

A doubled brace stands for the brace itself; there is no other escape, no expression and no shell.
"""

import re
from collections.abc import Mapping
from typing import Final

PARAMETER_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{[a-z][a-z0-9_]{0,63}\}|[{}]")


def placeholders(argument: str) -> tuple[str, ...]:
    """Return the names in the order in which they stand in `argument`, repeated ones repeated.

    Raises:
        ValueError: a brace stands alone, or what it encloses is not a parameter name.
    """
    names: list[str] = []
    for token in _TOKEN.findall(argument):
        if token in {"{", "}"}:
            raise ValueError(
                f"a single {token} is neither a placeholder like {{name}} nor a literal brace, which is doubled"
            )
        if token not in {"{{", "}}"}:
            names.append(token[1:-1])
    return tuple(names)


def fill(argument: str, values: Mapping[str, str]) -> str:
    """Return `argument` with each placeholder replaced; a replaced value is never looked at again.

    Raises:
        KeyError: a placeholder has no value.

    Example:
        >>> fill("--columns={{{count}}}", {"count": "3"})
        '--columns={3}'
    """

    def replaced(match: re.Match[str]) -> str:
        token = match[0]
        return token[0] if token in {"{{", "}}"} else values[token[1:-1]]

    return _TOKEN.sub(replaced, argument)
