"""Specs that cannot work are refused on a laptop, each in words that a person has read."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.run_document import InvalidRunDocument, parse_spec
from tests.bad_specs import ROWS, name_of, spec_of


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_a_spec_that_cannot_work_is_refused_on_a_laptop_in_these_words(row: dict[str, Any]) -> None:
    with pytest.raises(InvalidRunDocument) as caught:
        parse_spec(spec_of(row))

    assert caught.value.lines == (row["laptop"],)


def test_the_table_holds_more_than_a_hundred_specs_and_none_twice() -> None:
    assert len(ROWS) > 100
    assert len({str((row["path"], row["value"])) for row in ROWS}) == len(ROWS)
