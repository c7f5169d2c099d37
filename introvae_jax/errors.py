"""How every command ends when the user is to blame: one clear line, exit status 1, no traceback."""

from collections.abc import Callable, Sequence
import os
import sys
import types
from typing import NoReturn

from absl import app, flags, logging

from introvae_jax import progress

EXIT_RETRY = 75  # exit status (EX_TEMPFAIL): rerun the same command to resume; 1 means that a person must act


class UserError(Exception):
    """Something that the user can put right. The message names the thing and the way out.

    status: what the command exits with.
    """

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parses the flags and runs `main(argv)`; a UserError or a wrong flag becomes one line on stderr.

    What the libraries log, tracebacks of their threads included, is shown from --verbosity=0 on, and
    the traceback of the error itself at --verbosity=1.
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
    """Phases are announced from now on; for a command whose imports take long, before `run`."""
    try:
        progress.start(os.environ)
    except ValueError as error:
        fail(str(error))


def _tell(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
    """Python's own hook, but for what comes of a read of a damaged checkpoint that was given up."""
    if not _is_late(error):
        sys.__excepthook__(kind, error, traceback)


def _tell_unraisable(what: "sys.UnraisableHookArgs") -> None:
    """The same for what no caller hears of: TensorStore's threads report so, and the reads that Orbax leaves behind."""
    code = getattr(what.object, "cr_code", None)
    if not _is_late(what.exc_value) and (code is None or "orbax" not in code.co_filename):
        sys.__unraisablehook__(what)


def _is_late(error: BaseException | None) -> bool:
    """True if the error is 'Event loop is closed'."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def warn(message: str) -> None:
    """One line on stderr, of the main process, for what the user should know and the run survives."""
    progress.say(f"introvae_jax: warning: {printable(message)}")


def fail(message: str, status: int = 1) -> NoReturn:
    """Ends the process with `message` and the exit status."""
    say(message)
    sys.exit(status)


def say(message: str) -> None:
    """One line on stderr for what ends this process, whichever of several it is."""
    progress.say(f"introvae_jax: error: {progress.console.label}{printable(message)}", always=True)


def printable(text: str) -> str:
    """The text on one line, control characters and bytes that are not UTF-8 escaped: a terminal obeys some of them."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def fail_without(error: ModuleNotFoundError) -> NoReturn:
    """Ends the process with the command that installs the optional package that `error` is about."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "introvae_jax", "benchmarks", "configs"):
        raise error  # a mistake of ours
    package = {"skimage": "scikit-image"}.get(name, name)
    fail(f"the package {package} is not installed: pip install {package}")


def install(extra: str) -> str:
    """The command that installs an optional dependency. From a clone: the package is in no index."""
    return f"pip install '.[{extra}]' in a clone of the repository"


def one_line(error: BaseException) -> str:
    """The words of an error whose library spreads them over several lines; of a traceback in them, the end."""
    text = str(error.args[0]) if len(error.args) == 1 else str(error)  # str() of a KeyError quotes and escapes
    head, traceback, tail = text.partition("Traceback (most recent call last):")
    if traceback:
        text = head + tail.strip().splitlines()[-1]
    return " ".join(text.split()) or type(error).__name__
