"""Numbers as tables, messages and plots show them."""

from math import floor, log10


def number_text(number: float, digits: int = 9) -> str:
    """A number with four significant digits, such as 29,070 and 0.0517.

    Numbers below 0.0001, and numbers with more than `digits` digits before the point, have an exponent.
    """
    if not 1e-4 <= abs(number) < 0.99995 * 10**digits:
        return f"{number:.4g}"
    number = float(f"{number:.4g}")
    return f"{number:,.{max(3 - floor(log10(abs(number))), 0)}f}"
