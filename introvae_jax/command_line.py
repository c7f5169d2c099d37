"""Parses the command line. A mistake in a flag or in a config file raises a UserError of one line."""

import ast
from collections.abc import Iterator, Sequence
import contextlib
import difflib
import io
import linecache
import pathlib
import re
import sys
import traceback
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import tuple_parser

from introvae_jax.errors import UserError, one_line

HELP = "--help lists the flags"


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses `argv` into `values` and returns the program's name.

    Raises UserError, which names the flag, its value and the allowed values. For an error inside a config file, it
    names the file and the line.
    """
    argument = _check_config(argv) if "config" in values else None
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # ml_collections prints tracebacks of its own
            rest = values(argv)
            if "config" in values:
                hasattr(values["config"].value, "keys")  # the first access loads the file, and raises if that fails
    except SystemExit:
        sys.exit(0)  # --help; absl exits with 1
    except Exception as error:  # a config file is Python code: it can raise anything
        if isinstance(error, flags.UnrecognizedFlagError):
            told = _unknown_flag(error.flagname, values)
        else:
            told = (
                _in_config_file(error, argument) or _unknown_key(argv, argument, values) or _wrong_value(error, values)
            )
        raise UserError(told) from error
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: every option is a flag, --name=value; {HELP}")
    return rest


def refuse_unused(names: Sequence[str], why: str, values: flags.FlagValues = flags.FLAGS) -> None:
    """Raises UserError if a flag in `names` is on the command line, because it would have no effect.

    why: what the flag needs to have an effect, for instance "needs --format=jpeg".
    """
    given = [name for name in names if values[name].present]
    if given:
        raise UserError(f"--{given[0]}={values[given[0]].value} has no effect: it {why}")


def _overrides(argv: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yields the positions and keys of --config.KEY=VALUE arguments."""
    for position, word in enumerate(argv):
        if match := re.match(r"--?(?:no)?config\.([^=]*)", word):
            yield position, match[1]


def _check_config(argv: Sequence[str]) -> str | None:
    """The value of --config. Raises UserError unless it names a Python file that defines get_config."""
    places = [i for i, word in enumerate(argv) if re.match(r"--?config(=|$)", word)]
    first = next(_overrides(argv), None)
    if first is not None and not any(place < first[0] for place in places):
        raise UserError(f"--config.{first[1]}: --config=FILE must come before it, for instance configs/digits.py")
    if not places:
        return None
    _, given, argument = argv[places[-1]].partition("=")
    if not given:
        argument = next(iter(argv[places[-1] + 1 :]), "")
    path, _, of_config = argument.partition(":")
    place = f"--config={argument}"
    if not path:
        raise UserError(f"{place} names no file; the experiments are in configs/")
    if not pathlib.Path(path).is_file():
        raise UserError(f"{place}: there is no file {path}; the experiments are in configs/")
    try:
        tree = ast.parse(pathlib.Path(path).read_text(encoding="utf-8"), path)
    except (SyntaxError, ValueError, OSError) as error:
        if not path.endswith(".py"):
            raise UserError(f"{place}: a config is a Python file; the experiments are in configs/") from error
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else one_line(error)
        raise UserError(f"{place}: {path}{line}: {reason}") from error
    function = next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "get_config"), None)
    if function is None and not re.search(r"\bget_config\b|import \*", ast.unparse(tree)):
        raise UserError(f"{place}: {path} has no function get_config; the experiments are in configs/")
    if function is not None and of_config and not (function.args.args or function.args.vararg):
        raise UserError(f"{place}: {path} takes no argument; set its keys, for instance --config.data.size=128")
    return argument


def _in_config_file(error: BaseException, argument: str | None) -> str | None:
    """The message, file and line of an error raised by a config file; None for any other error."""
    if argument is None:
        return None
    path, _, of_config = argument.partition(":")
    file = pathlib.Path(path).resolve()
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for link in reversed(chain):
        frames = traceback.extract_tb(link.__traceback__)
        places = [pathlib.Path(frame.filename).resolve() for frame in frames]
        if file not in places:
            continue
        last = frames[-1]
        line = linecache.getline(last.filename, last.lineno or 0)
        if isinstance(link, ValueError) and line.lstrip().startswith("raise"):
            return f"--config={argument}: " + one_line(link).removeprefix(f"{file.name}:{of_config}: ")
        own = [i for i, place in enumerate(places) if place.parent == file.parent][-1]  # not in a library
        return f"--config={argument}: {frames[own].filename}, line {frames[own].lineno}: {_named(link)}"
    return None


def _named(error: BaseException) -> str:
    text = one_line(error)
    return text if text == type(error).__name__ else f"{type(error).__name__}: {text}"


def _unknown_key(argv: Sequence[str], argument: str | None, values: flags.FlagValues) -> str | None:
    """The error message for the first override of a key that the config does not have."""
    if argument is None:
        return None
    config = values["config"].parser.parse(argument)
    for _, key in _overrides(argv):
        node, *names = config, *key.split(".")
        for depth, name in enumerate(names):
            if isinstance(node, ConfigDict) and name in node:
                node = node[name]
                continue
            section = ".".join(("config", *names[:depth]))
            if not isinstance(node, ConfigDict):
                return f"--config.{key}: {section} = {node!r} has no keys"
            close = [f"--config.{other}" for other in _similar(name, list(_keys(config)))]
            hint = f"did you mean {' or '.join(close)}?" if close else f"{section} has {', '.join(sorted(node))}"
            return f"--config.{key}: the config has no such key; {hint}"
    return None


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from _keys(config[name], f"{prefix}{name}.")
        else:
            yield prefix + name


def _similar(name: str, keys: Sequence[str]) -> list[str]:
    """At most three keys whose last part equals `name`, is spelled like it, or is abbreviated by it ("lr")."""
    last = {key: key.rpartition(".")[2] for key in keys}
    same = [key for key in keys if name in (last[key], "".join(word[:1] for word in last[key].split("_")))]
    close = set(difflib.get_close_matches(name, last.values(), cutoff=0.75))
    return (same or [key for key in keys if last[key] in close])[:3]


def _unknown_flag(name: str, values: flags.FlagValues) -> str:
    keys = _keys(values["config"].value) if "config" in values and values["config"].value is not None else ()
    close = [f"--{other}" for other in difflib.get_close_matches(name, list(values), n=1)]
    close += [f"--config.{key}" for key in keys if key.rpartition(".")[2] == name]
    return f"--{name}: there is no such flag; " + (f"did you mean {' or '.join(close)}?" if close else HELP)


def _wrong_value(error: Exception, values: flags.FlagValues) -> str:
    """The error message for a wrong flag value, with the allowed values; otherwise absl's own message."""
    text = one_line(error)
    if match := re.search(r"[Ff]lag --(\S+) must have a value other than None", text):
        return f"--{match[1]} is missing: {values[match[1]].help.rstrip('.')}; {HELP}"
    if match := re.fullmatch(r"Missing value for flag --(\S+)", text):
        return f"--{match[1]} has no value: write --{match[1]}=VALUE"
    match = re.match(r"flag --([^=\s]+)=", text)
    if not match or match[1] not in values or error.__context__ is None:
        return text
    reason = one_line(error.__context__)
    given = text.removesuffix(f": {reason}").removeprefix("flag ")
    must_be = _must_be(values[match[1]].parser)
    return f"{given}: must be {must_be}" if must_be else f"{given}: {reason}"


def _must_be(parser: Any) -> str:
    """A description of the values that a parser accepts; "" if its own message is clear."""
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    if isinstance(parser, tuple_parser.TupleParser):
        return 'a tuple in quotes, for instance "(32, 64, 128)"'
    if isinstance(parser, flags.IntegerParser):
        return parser.syntactic_help.replace("an integer", "a whole number").replace("integer", "whole number")
    if isinstance(parser, flags.FloatParser):
        return parser.syntactic_help
    if "ConfigDict" in type(parser).__name__:
        return "a dictionary; set the keys of a section one by one, for instance --config.optim.learning_rate=1e-3"
    return ""
