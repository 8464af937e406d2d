"""What a rule is, and what it finds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from deploy.otelcol.lint.configuration import Configuration, Value

Settings: TypeAlias = dict[str, Value]
Check: TypeAlias = Callable[[Configuration], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    """A requirement on a configuration.

    Args:
        id: Stable name in lower case.
        check: Yields the places that break the rule.
        reason: What happens to records otherwise.
        remedy: What to write instead.
    """

    id: str
    check: Check
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


def setting(
    components: Callable[[Configuration], Iterable[tuple[str, Settings]]],
    name: str,
    is_wrong: Callable[[Settings], object],
) -> Check:
    """Return a check of one setting of several components.

    Args:
        components: Yields the place and the settings of each component.
        name: Path of the setting below the component.
        is_wrong: Gets the settings of a component and returns whether the setting is wrong.
    """

    def check(config: Configuration) -> Iterator[str]:
        for place, settings in components(config):
            if is_wrong(settings):
                yield f"{place}::{name}"

    return check
