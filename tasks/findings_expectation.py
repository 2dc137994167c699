"""An expectation of our own for Great Expectations: what a policy's rule decides is allowed as it stands.

Imported when the expectations run: Great Expectations takes seconds, and registers the class by its name.
"""

from __future__ import annotations

from typing import Any

from great_expectations.expectations import ExpectColumnValuesToBeInSet
from great_expectations.expectations.row_conditions import Column

from tasks.core.policy import Action


class ExpectFindingsToBeAllowed(ExpectColumnValuesToBeInSet):  # type: ignore[misc]
    """Every finding of the table that one rule decides has the action `allow`.

    The table has a line a finding with entity, place, counts, rule and action, so that results and Data Docs, which
    quote what is unexpected, quote actions and never a value. Make one with `for_rule`.
    """

    column: str = "action"
    value_set: Any = (Action.ALLOW.value,)

    @classmethod
    def for_rule(cls, rule: str, **more: Any) -> ExpectFindingsToBeAllowed:
        """The expectation about the findings that a rule decides, by its name as in `Policy.rule_names`."""
        made: Any = cls
        return made(row_condition=Column("rule") == rule, **more)
