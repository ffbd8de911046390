"""The errors that gru-xp raises on purpose, each with a message of one line for the person who can act on it."""


class GruXpError(Exception):
    """Base of every error that gru-xp raises on purpose."""


class ArgumentError(GruXpError, ValueError):
    """An argument or a setting is out of range, or of the wrong kind."""


class NotFittedError(GruXpError, ValueError):
    """A Forecaster is used before it is fitted or loaded."""


class ShapeError(GruXpError, ValueError):
    """An array's shape, namespace, device or dtype does not fit the call."""


class DataError(GruXpError, ValueError):
    """A file or a series cannot be used as it is."""


class DataWarning(UserWarning):
    """What was done to a file or a table on reading, or is doubtful about it."""


class DeviceError(GruXpError, RuntimeError):
    """The device that was asked for cannot be used."""


class DeviceWarning(RuntimeWarning):
    """A fast path of a device is not used, as it does not work there, or there is no memory for it."""


class MixedDevicesError(DeviceError, ShapeError):
    """Arrays of one call are on different devices."""


class DeviceNameError(DeviceError, ArgumentError):
    """What was asked for is not the name of a device."""


class CheckpointError(GruXpError, ValueError):
    """A model file cannot be read or written."""


class MemoryLimitError(GruXpError, MemoryError):
    """There is not enough memory; the message says what would need less."""


class WorkerError(GruXpError, RuntimeError):
    """A worker process has ended before its task was done."""


def first_line(error: BaseException) -> str:
    """What an error says, for a message of one line: its first line, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def printable(text: str, longest: int | None = 60) -> str:
    """Text that a file holds, for a message: on one line, without characters that steer a terminal, and short."""
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text[: longest and longest + 1])
    return text if longest is None or len(text) <= longest else text[: longest - 3] + "..."
