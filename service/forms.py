"""Forms of texts from outside: which values a parameter can have, and the sentence for one that it cannot have."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

import msgspec


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The form of a parameter: one of `choices`, a text that `pattern` matches, or any text within the lengths."""

    description: str = ""
    example: str = ""
    choices: Sequence[str] = ()
    pattern: str = ""
    title: str = ""
    """The pattern in words."""
    min_length: int = 1
    max_length: int = 512

    def problem(self, value: str) -> str | None:
        """Return what is allowed when the value is not; None when it is."""
        if self.choices:
            allowed = f"{meant(value, self.choices)}allowed are {', '.join(self.choices)}"
            return None if value in self.choices else allowed
        if not self.min_length <= len(value) <= self.max_length:
            return f"allowed are {self.min_length} to {self.max_length} characters"
        if self.pattern and re.fullmatch(self.pattern, value) is None:
            return f"allowed are {self.title}"
        return None


def meant(text: str, known: Sequence[str]) -> str:
    """Return a question for the known text that is most like this one; empty when none is like it.

    Example:
        >>> meant("reslut", ["result", "outcome"])
        'did you mean result? '
    """
    nearest = get_close_matches(text, known, n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""
