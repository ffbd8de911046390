"""Numbers as people write them, where there is one way to read them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of a column are written.

    Attributes
    ----------
    decimal
        The decimal sign.
    thousands
        The sign between groups of digits; empty where there is none.
    unit
        The currency or percent sign at each number; empty where there is none.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""
