"""Once more with less memory, where it has run out."""

from collections.abc import Callable
from typing import TypeVar

from gru_xp.devices.cublas import choose_workspace
from gru_xp.devices.device import Device, is_out_of_memory
from gru_xp.devices.fast_paths import replace, warn

Result = TypeVar("Result")

SMALL_WORKSPACE = "a small workspace for cuBLAS, which may be slower"
"""For warnings."""


def with_less_memory(
    attempt: Callable[[], Result],
    device: Device,
    instead: str,
    *,
    release: Callable[[], object] | None = None,
    may_repeat: Callable[[], bool] = lambda: True,
) -> Result:
    """What `attempt` returns; where it runs out of memory, it is called again, once, when there is more.

    Before that, a DeviceWarning is given, and the large workspace of cuBLAS is given up for the small one.

    Parameters
    ----------
    attempt
        It continues where it was left, or begins anew.
    device
        Where it computes.
    instead
        What is used from then on, for the warning.
    release
        Lets go of what can be done without.
    may_repeat
        Whether it may be called again after an error.

    Raises
    ------
    DeviceError
        A CUDA device runs out of memory, and ``GRU_XP_NO_FALLBACK`` is set.
    """
    if release is None and not device.is_cuda:
        return attempt()  # there is nothing to give up
    try:
        return attempt()
    except Exception as error:
        reasons = (error, error.__cause__) if error.__cause__ else (error,)
        if not any(map(is_out_of_memory, reasons)) or not may_repeat():
            raise
        del reasons
    if release is not None:
        release()  # here, where the error is gone, with all that its frames refer to
    if device.is_cuda:
        replace(f"{device.name} ran out of memory", instead)
        with device.use():
            choose_workspace(is_small=True)
    else:
        warn(f"{device.name} ran out of memory; using {instead}")
    return attempt()
