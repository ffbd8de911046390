"""What several commands share: their base class, and each shared option once."""

import functools
import io
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from gru_xp.errors import ArgumentError, GruXpError, MemoryLimitError, printable
from gru_xp.io.messages import command_line, flag

from .messages import device_warnings_as_notes, log_as_notes

if TYPE_CHECKING:
    from gru_xp.forecasting.backtest import OtherForecast

F = TypeVar("F", bound=Callable[..., Any])


def run(group: click.Group, name: str | None = None) -> NoReturn:
    """Run a command line and end with its exit code: 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        code = group.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code if isinstance(code, int) else 0)


def as_options(message: str) -> str:
    """A message that names settings, as in batch_size=32, with options instead."""
    message = re.sub(r"\b([a-z]+(?:_[a-z]+)*)='?(\w+)'?", lambda found: _as_option(found[1], found[2]), message)
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda found: flag(found[0]), message)


def _as_option(name: str, value: str) -> str:
    return {"True": flag(name), "False": flag(f"no_{name}")}.get(value, f"{flag(name)} {value}")


@contextmanager
def settings_as_options() -> Iterator[None]:
    """Context in which an error about settings of the forecaster names options."""
    try:
        yield
    except ArgumentError as error:
        raise ArgumentError(as_options(str(error))) from error


class Command(click.Command):
    """A command whose errors are one line on stderr and exit code 1, with ``--debug`` a traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."))

    def invoke(self, ctx: click.Context) -> Any:
        debug = ctx.params.pop("debug")
        try:
            quiet = bool(ctx.params.get("quiet"))
            with command_line(), device_warnings_as_notes(), log_as_notes(quiet=quiet):
                return super().invoke(ctx)
        except GruXpError as error:
            if debug:
                raise
            if isinstance(error, MemoryLimitError):
                error = MemoryLimitError(as_options(str(error)))
            raise click.ClickException(printable(str(error), None)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except MemoryError as error:
            if debug:
                raise
            reason = " ".join(str(error).split()).rstrip(".")
            what = f" ({reason})" if reason else ""
            raise click.ClickException(f"not enough memory{what}; close other programs, or give fewer rows") from error
        except Exception as error:
            if debug:
                raise
            what = printable(" ".join(f"{type(error).__name__}: {error}".split()), None)
            if _is_of_cuda(error, ctx):
                advice = "set GRU_XP_PLAIN=1 to run without the fast paths, or use --device cpu"
                raise click.ClickException(f"the CUDA device failed: {what}; {advice}") from error
            raise click.ClickException(f"unexpected {what}; run again with --debug for the traceback") from error


def _is_of_cuda(error: Exception, ctx: click.Context) -> bool:
    """Whether CuPy raised it, or anything did where a CUDA device was asked for."""
    package = type(error).__module__.partition(".")[0]
    return package in ("cupy", "cupyx", "cupy_backends") or str(ctx.params.get("device")).startswith("cuda")


class FiniteRange(click.FloatRange):
    """A range of floats without nan and inf, which `click.FloatRange` lets through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return float(number)


class FiniteNumber(click.types.FloatParamType):
    """A float without nan and inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return FiniteRange().convert(value, param, ctx)


class OrWord(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number of at least a minimum, or a number above a minimum, or one of some words."""

    def __init__(self, kind: click.IntRange | FiniteRange, *words: str) -> None:
        self._kind, self._words = kind, words
        self.name = kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in self._words:
            return value
        try:
            return self._kind.convert(value, param, ctx)
        except click.BadParameter:
            number = f"a whole number of at least {self._kind.min}"
            if isinstance(self._kind, click.FloatRange):
                number = f"a number above {self._kind.min}"
            self.fail(f"{str(value)!r} is not {', '.join(self._words)} or {number}", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in self._words if word.startswith(incomplete)]


def is_given(ctx: click.Context, name: str) -> bool:
    """Whether an option is on the command line."""
    return ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


PLOT_FORMATS = ("png", "svg", "none")
"""Of ``--plots``; the first one is the default."""

_NO_LIMIT = {"batch_size": "all", "clip_norm": "none", "patience": 0}
"""How options say that there is no limit, which is None in Python."""


def limits_taken_off(settings: Mapping[str, Any]) -> dict[str, None]:
    """Those of the settings whose option says that there is no limit."""
    return {name: None for name, word in _NO_LIMIT.items() if settings.get(name) == word}


class Setting(click.Option):
    """An option for a setting of the forecaster, whose default is that of ``--preset``, or of `Forecaster` without."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        return _preset(ctx.params.get("preset", "recipe"))[self.name]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        ours, theirs = (_preset(name)[self.name] for name in ("recipe", "article"))
        if record is None or theirs == ours:
            return record
        if isinstance(theirs, bool):
            theirs = (self.opts if theirs else self.secondary_opts)[0].removeprefix("--")
        elif theirs is None:
            theirs = _NO_LIMIT[self.name or ""]
        names, text = record
        return names, f"{text.removesuffix(']')}; article: {theirs}]"


def setting(*names: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` for a `Setting`."""
    return click.option(*names, cls=Setting, show_default=True, **attributes)


class _Seasons(OrWord):
    """Whole numbers of rows, separated by commas, or one of some words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(super(_Seasons, self).convert(part.strip(), param, ctx) for part in str(value).split(","))


def _check_seasons(ctx: click.Context, param: click.Parameter, values: tuple[tuple[Any, ...], ...]) -> Any:
    """A season, two of them with the shorter one first, or a word."""
    seasons = tuple(dict.fromkeys(season for given in values for season in given)) or ("auto",)
    if len(seasons) > 2 or (len(seasons) > 1 and any(isinstance(season, str) for season in seasons)):
        raise click.BadParameter(
            f"{','.join(map(str, seasons))} is not auto, none, a number of rows, or two of them, such as 24,168"
        )
    return tuple(sorted(seasons)) if len(seasons) > 1 else seasons[0]


class SeasonSetting(Setting):
    """``--season`` as a `Setting` that can be given twice."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        return (super().get_default(ctx, call),)


def season_option(text: str, **attributes: Any) -> Callable[[F], F]:
    """``--season`` for two seasons, which reaches the command as `ZeroShotForecaster` takes it."""
    return click.option(
        "--season",
        type=_Seasons(click.IntRange(min=2), "auto", "none"),
        multiple=True,
        metavar="N|auto|none",
        callback=_check_seasons,
        help=text,
        **attributes,
    )


def weights_option(text: str) -> Callable[[F], F]:
    """``--weights``."""
    return click.option(
        "--weights",
        type=click.Path(),
        metavar="FILE",
        help=f"{text}: pretrained weights to use, as python -m gru_xp.pretrained writes them.  [default: gru-xp's own]",
    )


def _preset(name: str) -> Mapping[str, Any]:
    from gru_xp.forecasting.presets import PRESETS

    return PRESETS[name]


def _check_device(ctx: click.Context, param: click.Parameter, value: str) -> str:
    from gru_xp.devices.device import DEVICE_PATTERN

    if not DEVICE_PATTERN.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not auto, cpu, cuda or cuda:N, such as cuda:0")
    return value


def _complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in ("auto", "cpu", "cuda") if name.startswith(incomplete)]


class Limits(NamedTuple):
    """Limits of forecasts; None for none."""

    minimum: float | None = None
    maximum: float | None = None

    def given(self) -> dict[str, float]:
        """Those that there are, by name of the setting."""
        return {name: limit for name, limit in self._asdict().items() if limit is not None}


class DeviceRequest(NamedTuple):
    """The options about the device, and why they are so, unless somebody asked."""

    name: str
    no_fallback: bool
    threads: int | None
    reason: str | None = None
    tf32: bool = False


@contextmanager
def _fallback_forbidden() -> Iterator[None]:
    """Context in which neither the CPU nor plain operations replace what does not work."""
    from gru_xp.devices.fast_paths import NO_FALLBACK_VARIABLE

    before = os.environ.get(NO_FALLBACK_VARIABLE)
    os.environ[NO_FALLBACK_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_FALLBACK_VARIABLE]
        else:
            os.environ[NO_FALLBACK_VARIABLE] = before


def device_options(command: F) -> F:
    """``--device``, ``--no-fallback``, ``--threads`` and ``--tf32``, which reach the command as one `DeviceRequest`."""

    @functools.wraps(command)
    def with_request(*args: Any, device: str, no_fallback: bool, threads: int | None, tf32: bool, **others: Any) -> Any:
        if tf32 and device == "cpu":
            raise click.UsageError("--tf32 cannot be combined with --device cpu, which has no TF32")
        with _fallback_forbidden() if no_fallback else nullcontext():
            return command(*args, device=DeviceRequest(device, no_fallback, threads, tf32=tf32), **others)

    options = (
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="auto|cpu|cuda|cuda:N",
            callback=_check_device,
            shell_complete=_complete_device,
            help="Device; auto is a working CUDA device if there is one, else the CPU.",
        ),
        click.option(
            "--no-fallback",
            is_flag=True,
            help="Fail instead of using something slower: the CPU for a requested CUDA device, plain operations for a "
            "fast path, or full precision for --tf32. Same as GRU_XP_NO_FALLBACK=1.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 4096),
            metavar="N",
            help="Number of CPU threads.  [default: OMP_NUM_THREADS, else all cores]",
        ),
        click.option(
            "--tf32",
            is_flag=True,
            help="Let matrix products of float32 round their factors to TF32, about three digits, on a CUDA device.",
        ),
    )
    for option in reversed(options):
        with_request = option(with_request)
    return cast(F, with_request)


def workers_option(text: str) -> Callable[[F], F]:
    """``--workers``; `text` says what is shared among them."""
    return click.option(
        "--workers",
        type=click.IntRange(1, 4096),
        metavar="N",
        default=1,
        show_default=True,
        help=f"{text} in N processes, with one thread each. The results are the same bits as with 1, this process.",
    )


class _Models(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """A choice of names in any case, which messages show as they are spelled."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        return f"{value!r} is not one of {', '.join(map(repr, self.choices))}."


def limit_options(command: F) -> F:
    """``--min`` and ``--max`` of forecasts that are made already, which reach the command as one `Limits`."""

    @functools.wraps(command)
    def with_limits(*args: Any, minimum: float | None, maximum: float | None, **others: Any) -> Any:
        if minimum is not None and maximum is not None and minimum >= maximum:
            raise click.UsageError(f"--min is {minimum:g} and --max {maximum:g}; the former must be smaller")
        return command(*args, limits=Limits(minimum, maximum), **others)

    for name, field, side in (("--max", "maximum", "above"), ("--min", "minimum", "below")):
        text = f"No forecast, nor interval, is {side} this.  [default: with RUN, as in the run]"
        with_limits = click.option(name, field, type=FiniteNumber(), metavar="X", help=text)(with_limits)
    return cast(F, with_limits)


def plots_option(command: F) -> F:
    """``--plots``."""
    return click.option(
        "--plots",
        type=click.Choice(PLOT_FORMATS),
        default=PLOT_FORMATS[0],
        show_default=True,
        help="Format of the plots in the run folder; none to draw none.",
    )(command)


def plot_option(what: str) -> Callable[[F], F]:
    """``--plot``, whose help says what is drawn."""
    return click.option(
        "--plot",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        callback=_check_plot,
        help=f"{what}, as a .png, .svg or .pdf file.",
    )


def _check_plot(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise click.BadParameter(f"'{value}' must end in .png, .svg or .pdf, which determines the format.")
    return value


def compare_option(command: F) -> F:
    """``--compare``, which reaches the command as names of `gru_xp.interop.statsforecast`."""
    return click.option(
        "--compare",
        multiple=True,
        type=_Models(["AutoTheta", "AutoETS"], case_sensitive=False),
        metavar="AutoTheta|AutoETS",
        help="Compare with a model of statsforecast (extra statsforecast), too; give it once for each. It is fitted "
        "before every forecast, which is slow for many forecasts and for long seasons.",
    )(command)


def forecasts_to_compare(names: tuple[str, ...]) -> "dict[str, OtherForecast]":
    """What ``--compare`` asks for, by name."""
    if not names:
        return {}
    from gru_xp.interop.statsforecast import statsforecast_model

    return {name: statsforecast_model(name) for name in dict.fromkeys(names)}


def json_option(command: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def quiet_option(command: F) -> F:
    """``--quiet``."""
    return click.option(
        "-q",
        "--quiet",
        is_flag=True,
        help="Print only errors, warnings and changes to the data on stderr.",
    )(command)


def _split_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def joined_features(feature: tuple[str, ...], features: tuple[str, ...]) -> tuple[str, ...] | str:
    """What ``--feature`` and ``--features`` ask for together; ``"all"`` is every other numeric column."""
    names = (*feature, *features)
    return "all" if names == ("all",) else names


def column_options(default: str) -> Callable[[F], F]:
    """``--target``, whose help says that `default` is taken where it is left out, ``--feature`` and ``--features``.

    The command gets the last two as one: names of columns, or ``"all"``.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_features(*args: Any, feature: tuple[str, ...], features: tuple[str, ...], **others: Any) -> Any:
            return command(*args, features=joined_features(feature, features), **others)

        options = (
            click.option("--target", metavar="COLUMN", help=f"Column to predict.  [default: {default}]"),
            click.option(
                "--feature",
                multiple=True,
                metavar="COLUMN",
                help="Additional input column; give it once for each, or all for every other numeric column.",
            ),
            click.option(
                "--features",
                multiple=True,
                metavar="COLUMNS",
                callback=_split_names,
                help="The same, several names separated by commas.",
            ),
        )
        for option in reversed(options):
            with_features = option(with_features)
        return cast(F, with_features)

    return decorate


def _check_format(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    from gru_xp.interop.files import SUFFIXES

    if value.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"'{value}' must end in {' or '.join(SUFFIXES)}, which determines the format.")
    return value


def format_argument(command: F) -> F:
    """``FILE``, in a format of another program."""
    return click.argument("file", metavar="FILE", type=click.Path(path_type=Path), callback=_check_format)(command)
