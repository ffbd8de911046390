"""What ``gru-xp evaluate --diagnostics`` finds in the errors of a run."""

from dataclasses import replace
from typing import TYPE_CHECKING

from .messages import note

if TYPE_CHECKING:
    from gru_xp.forecasting import Forecaster
    from gru_xp.forecasting.diagnostics import Diagnostics
    from gru_xp.io.series import TimeSeries


def find_patterns(
    forecaster: "Forecaster", series: "TimeSeries", horizon: int, *, known: bool, quiet: bool
) -> "Diagnostics":
    """The patterns in the errors of a model in the rows that it was not trained on.

    Where their size is unequal, and the first rows are `known` to the model, with the errors that the logarithm of the
    target would have given.
    """
    from gru_xp.errors import GruXpError
    from gru_xp.forecasting.data import naming
    from gru_xp.forecasting.diagnostics import compare_with_log, diagnose

    start = forecaster.notes["fit_end"] if known else None
    with naming(series):
        found = diagnose(forecaster, series, start)
    if not found.suggests_log or start is None:
        return found
    note("the size of the errors is unequal: training with --transform log, to compare", quiet=quiet)
    try:
        return replace(found, log=compare_with_log(forecaster, series, start, horizon))
    except GruXpError as error:
        note(f"warning: no comparison with --transform log: {error}")
        return found
