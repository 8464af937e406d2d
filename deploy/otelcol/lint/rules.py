"""All rules, and their application to a configuration."""

from collections.abc import Sequence
from itertools import chain
from typing import Final

from deploy.otelcol.lint import archive_rules, audit_rules, hand_over_rules, own_rules, queue_rules, trace_rules
from deploy.otelcol.lint.configuration import Configuration
from deploy.otelcol.lint.rule import Finding, Rule

RULES: Final[Sequence[Rule]] = tuple(
    chain(
        audit_rules.RULES,
        queue_rules.RULES,
        hand_over_rules.RULES,
        archive_rules.RULES,
        trace_rules.RULES,
        own_rules.RULES,
    )
)


def findings(config: Configuration) -> list[Finding]:
    """Return every place that breaks a rule, in the order of the rules."""
    return [Finding(rule, place) for rule in RULES for place in rule.check(config)]
