"""Errors of commands: a user's mistake ends a command with one clear line, exit status 1 and no traceback."""

from collections.abc import Callable, Sequence
import os
import sys
import types
from typing import NoReturn

from absl import app, flags, logging

from introvae_jax import progress

EXIT_RETRY = 75  # exit status (EX_TEMPFAIL): rerun the same command to resume; 1 means that a person must act


class UserError(Exception):
    """An error that the user can fix. The message says what happened, where, and what to do.

    status: exit status of the command.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parses the flags and runs `main(argv)`. Prints a UserError or a wrong flag as one line on stderr.

    --verbosity=0 shows the libraries' log lines and the tracebacks of their threads; --verbosity=1 also shows the
    traceback of the error.
    """
    from introvae_jax import command_line  # here, because it raises the UserError of this module

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return command_line.parse(argv)
        except UserError as error:
            fail(str(error))

    def guarded(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.FATAL)
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA's lines; a fatal one is shown
        announce()
        try:
            main(argv)
        except UserError as error:
            if flags.FLAGS.verbosity >= 1:
                raise
            fail(str(error), error.status)
        except ModuleNotFoundError as error:
            fail_without(error)
        except KeyboardInterrupt:
            fail("interrupted; what was written before stays")

    sys.excepthook, sys.unraisablehook = _tell, _tell_unraisable
    app.run(guarded, flags_parser=parse)


def announce() -> None:
    """Starts announcing phases. Commands with slow imports call it before `run`."""
    try:
        progress.start(os.environ)
    except ValueError as error:
        fail(str(error))


def _tell(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
    """Python's excepthook, except for late errors of an abandoned read of a damaged checkpoint."""
    if not _is_late(error):
        sys.__excepthook__(kind, error, traceback)


def _tell_unraisable(what: "sys.UnraisableHookArgs") -> None:
    """The same for unraisable errors: TensorStore's threads and reads that Orbax abandons raise them."""
    code = getattr(what.object, "cr_code", None)
    if not _is_late(what.exc_value) and (code is None or "orbax" not in code.co_filename):
        sys.__unraisablehook__(what)


def _is_late(error: BaseException | None) -> bool:
    """True if the error is 'Event loop is closed'."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def warn(message: str) -> None:
    """Prints a warning as one line on stderr, in the main process only."""
    progress.say(f"introvae_jax: warning: {printable(message)}")


def fail(message: str, status: int = 1) -> NoReturn:
    """Prints `message` as an error and ends the process with the exit status."""
    say(message)
    sys.exit(status)


def say(message: str) -> None:
    """Prints an error as one line on stderr, in every process."""
    progress.say(f"introvae_jax: error: {progress.console.label}{printable(message)}", always=True)


def printable(text: str) -> str:
    """The text on one line, with control characters (which terminals interpret) and non-UTF-8 bytes escaped."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def fail_without(error: ModuleNotFoundError) -> NoReturn:
    """Ends the process with an error that gives the command to install the missing optional package."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "introvae_jax", "benchmarks", "configs"):
        raise error  # a bug of this package
    package = {"skimage": "scikit-image"}.get(name, name)
    fail(f"the package {package} is not installed: pip install {package}")


def install(extra: str) -> str:
    """The command that installs an optional dependency from a clone; the package is not on PyPI."""
    return f"pip install '.[{extra}]' in a clone of the repository"


def one_line(error: BaseException) -> str:
    """The message of an error on one line. Of a traceback in the message, only the end is kept."""
    text = str(error.args[0]) if len(error.args) == 1 else str(error)  # str() of a KeyError quotes and escapes
    head, traceback, tail = text.partition("Traceback (most recent call last):")
    if traceback:
        text = head + tail.strip().splitlines()[-1]
    return " ".join(text.split()) or type(error).__name__
