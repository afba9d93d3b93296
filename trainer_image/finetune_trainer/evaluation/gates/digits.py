"""How many digits a gate's words need, so that they are true as they stand."""

from __future__ import annotations

_FEWEST, _MOST = 2, 9


def digits_of(wanted: float) -> int:
    """Digits behind the point that show a number of the spec as it was written."""
    return next((digits for digits in range(_FEWEST, _MOST) if round(wanted, digits) == wanted), _MOST)


def digits_under(new: float, wanted: float, base: float = 0.0) -> int:
    """The same, and as many as show that `new` is under `base` and `wanted` together."""
    return next(
        (
            digits
            for digits in range(digits_of(wanted), _MOST)
            if round(round(base, digits) + wanted - round(new, digits), digits) > 0
        ),
        _MOST,
    )
