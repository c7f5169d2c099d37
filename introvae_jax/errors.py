"""How every command ends when the user is to blame: one clear line, exit status 1, no traceback."""

from collections.abc import Callable, Sequence
import sys

from absl import app, flags, logging


class UserError(Exception):
    """Something that the user can put right. The message names the thing and the way out."""


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parses the flags and runs `main(argv)`; a UserError or a wrong flag becomes one line on stderr."""

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            rest = flags.FLAGS(argv)
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, ImportError, OSError) as error:
            fail(_one_line(error))
        if len(rest) > 1:
            fail(f"unexpected argument {rest[1]!r}: every option is a flag, --name=value; --help lists them")
        return rest

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # the libraries below tell much at INFO
        try:
            main(argv)
        except UserError as error:
            fail(str(error))

    app.run(guarded, flags_parser=parse)


def fail(message: str) -> None:
    """Ends the process with `message` and exit status 1."""
    sys.exit(f"introvae_jax: error: {message}")


def _one_line(error: Exception) -> str:
    """The words of a flag error, which ml_collections spreads over several lines."""
    return " ".join(str(error).strip("'\"").split())
