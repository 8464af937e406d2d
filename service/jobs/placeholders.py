"""The grammar of `{parameter}` inside an argument of a command, for templates and plans.

A doubled brace is a literal brace. There are no other escapes, no expressions and no shell.
"""

import re
from collections.abc import Mapping
from typing import Final

PARAMETER_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{[a-z][a-z0-9_]{0,63}\}|[{}]")


def placeholders(argument: str) -> tuple[str, ...]:
    """Return the names in the order of `argument`; a name that occurs twice is returned twice.

    Raises:
        ValueError: there is a single brace, or a text between braces that is not a parameter name.
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
    """Return `argument` with each placeholder replaced; placeholders inside a value are not replaced.

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
