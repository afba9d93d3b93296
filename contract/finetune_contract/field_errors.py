"""How a check over several fields says which of them is wrong, so that a message can name its path."""

from __future__ import annotations

from pydantic_core import PydanticCustomError

CROSS_FIELD = "cross_field"
"""pydantic's type of such an error."""


def field_error(field: str, fact: str, remedy: str) -> PydanticCustomError:
    """The error to raise in a model validator.

    Args:
        field: path below the model as YAML spells it, such as `microBatchSize`; empty for the model itself.
        fact: what was found.
        remedy: what to do.
    """
    return PydanticCustomError(
        CROSS_FIELD, "{fact}; {remedy}", {"field": field, "fact": fact, "remedy": remedy}
    )
