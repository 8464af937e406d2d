"""What a rule is, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deploy.otelcol.lint.configuration import Configuration


@dataclass(frozen=True)
class Rule:
    """One way in which a configuration must not be.

    Args:
        id: Lower case, stable: what a change of the configuration is discussed by.
        reason: What happens to records otherwise.
        remedy: What to write instead.
        check: Yields the places that break the rule.
    """

    id: str
    check: Callable[[Configuration], Iterator[str]]
    reason: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A rule and a place that breaks it."""

    rule: Rule
    place: str

    def __str__(self) -> str:
        """Return one line that says where, what to do and why."""
        return f"{self.place}: {self.rule.remedy}, because {self.rule.reason} [{self.rule.id}]"
