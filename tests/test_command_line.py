"""Mistakes on the command line, parsed in this process: one line that names the flag, the value and what is allowed."""

import pathlib

from absl import flags
from ml_collections import config_flags
import pytest

from introvae_jax import command_line
from introvae_jax.errors import UserError

DIGITS = "--config=configs/digits.py"


@pytest.fixture
def parse(monkeypatch):
    """Parses words as a command with a config and one flag of each kind would."""

    def run(*words):
        values = flags.FlagValues()
        argv = ["command", *words]
        monkeypatch.setattr("sys.argv", argv)  # where ml_collections looks for overrides
        config_flags.DEFINE_config_file("config", flag_values=values)
        flags.DEFINE_string("workdir", None, "Where things go.", flag_values=values)
        flags.DEFINE_integer("num", 3, "How many.", lower_bound=1, flag_values=values)
        flags.DEFINE_float("share", 0.5, "Of all.", lower_bound=0, upper_bound=1, flag_values=values)
        flags.DEFINE_bool("floor", False, "Whether.", flag_values=values)
        flags.DEFINE_enum("mode", "a", ["a", "b"], "Which.", flag_values=values)
        flags.mark_flag_as_required("config", flag_values=values)
        command_line.parse(argv, values)
        return values

    return run


MISTAKES = {
    "abbreviated key": ([DIGITS, "--config.lr=1e-3"], ["--config.lr:", "--config.optim.learning_rate"]),
    "key without its section": ([DIGITS, "--config.learning_rate=1"], ["--config.optim.learning_rate"]),
    "misspelt key": ([DIGITS, "--config.batchsize=8"], ["--config.batchsize:", "--config.batch_size"]),
    "misspelt key of a section": ([DIGITS, "--config.data.sizes=8"], ["--config.data.sizes:", "--config.data.size"]),
    "misspelt section": ([DIGITS, "--config.dat.size=8"], ["--config.dat.size:", "config has "]),
    "key nobody knows": ([DIGITS, "--config.log.zebra=1"], ["--config.log.zebra:", "config.log has every"]),
    "key of a number": ([DIGITS, "--config.steps.x=1"], ["--config.steps.x:", "config.steps = 4500 has no keys"]),
    "two dots": ([DIGITS, "--config.data..size=8"], ["--config.data..size:"]),
    "no key": ([DIGITS, "--config.=8"], ["--config.:"]),
    "word for a number": ([DIGITS, "--config.steps=abc"], ["--config.steps=abc: must be a whole number"]),
    "nothing for a number": ([DIGITS, "--config.steps="], ["--config.steps=: must be a whole number"]),
    "fraction for a whole number": ([DIGITS, "--config.steps=1.5"], ["--config.steps=1.5: must be a whole number"]),
    "word for a float": ([DIGITS, "--config.optim.learning_rate=fast"], ["learning_rate=fast: must be a number"]),
    "word for a bool": ([DIGITS, "--config.data.mirror=maybe"], ["--config.data.mirror=maybe: must be true or false"]),
    "half a tuple": ([DIGITS, "--config.model.channels=(8,8"], ["--config.model.channels=(8,8: must be a tuple"]),
    "number for a section": ([DIGITS, "--config.optim=3"], ["--config.optim=3: must be", "one by one"]),
    "no value": ([DIGITS, "--config.steps"], ["--config.steps has no value"]),
    "override before the config": (["--config.steps=3", DIGITS], ["--config.steps:", "must come before it"]),
    "override without a config": (["--config.steps=3"], ["--config.steps:", "--config=FILE"]),
    "no config": ([], ["--config is missing"]),
    "config without a value": (["--config"], ["--config"]),
    "empty config": (["--config="], ["--config= names no file", "configs/"]),
    "config that is not there": (["--config=no.py"], ["--config=no.py:", "no file no.py"]),
    "the same beside an override": (["--config=no.py", "--config.steps=3"], ["--config=no.py:", "no file no.py"]),
    "the same in two words": (["--config", "no.py", "--config.steps=3"], ["--config=no.py:", "no file no.py"]),
    "folder for a config": (["--config=configs"], ["--config=configs:", "no file configs"]),
    "text for a config": (["--config=README.md"], ["--config=README.md:", "Python file"]),
    "program for a config": (["--config=setup.py"], ["--config=setup.py:", "get_config"]),
    "argument that is not taken": (["--config=configs/folder.py:128"], ["configs/folder.py", "--config.data.size=128"]),
    "argument that is unknown": (["--config=configs/digits.py:gan"], ["configs/digits.py:gan: one of introvae, vae"]),
    "two unknown arguments": (["--config=configs/celebahq.py:256,x"], ["256,x: no such settings", "128,paper"]),
    "empty argument": (["--config=configs/avatars.py:"], ["configs/avatars.py:", "power of two"]),
    "unknown flag": ([DIGITS, "--wrkdir=x"], ["--wrkdir:", "did you mean --workdir?"]),
    "key as a flag": ([DIGITS, "--batch_size=8"], ["--batch_size:", "--config.batch_size"]),
    "flag nobody knows": ([DIGITS, "--zebra"], ["--zebra:", "--help"]),
    "flag without a value": ([DIGITS, "--workdir"], ["--workdir has no value"]),
    "word for a flag's number": ([DIGITS, "--num=x"], ["--num=x: must be a positive whole number"]),
    "number below a flag's bound": ([DIGITS, "--num=0"], ["--num=0: must be a positive whole number"]),
    "share above one": ([DIGITS, "--share=2"], ["--share=2: must be a number in the range [0, 1]"]),
    "word for a flag's bool": ([DIGITS, "--floor=maybe"], ["--floor=maybe: must be true or false"]),
    "choice that is none": ([DIGITS, "--mode=c"], ["--mode=c", "<a|b>"]),
    "word that is no flag": ([DIGITS, "train"], ["unexpected argument 'train'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_that_names_it_and_the_way_out(case, parse):
    words, parts = MISTAKES[case]
    with pytest.raises(UserError) as error:
        parse(*words)
    told = str(error.value)
    assert told.count("\n") == 0
    for raw in ("Traceback", "KeyError", "<class", "'lr'", "invalid literal", "NoneType", "flag --"):
        assert raw not in told
    for part in parts:
        assert part in told


OWN = {
    "syntax error": ("def get_config():\n    return (\n", ["line 2", "never closed"]),
    "name that is none": ("def get_config():\n    x = 1\n    return confg\n", ["line 3: NameError", "'confg'"]),
    "package that is missing": ("import zebra\n\n\ndef get_config(): ...\n", ["line 1: ModuleNotFoundError", "zebra"]),
    "misspelt key": (
        "from configs import default\ndef get_config():\n    config = default.get_config()\n"
        "    config.optim.lr = 1.0\n    return config\n",
        ["line 4: AttributeError", "lr"],
    ),
    "wrong type": (
        "from configs import default\ndef get_config():\n    config = default.get_config()\n"
        "    config.steps = 'many'\n    return config\n",
        ["line 4: TypeError", "steps"],
    ),
    "value it computes with": ("def get_config():\n    return int('x')\n", ["line 2: ValueError", "'x'"]),
    "file that it reads": ("def get_config():\n    return open('/no/file')\n", ["line 2: FileNotFoundError"]),
    "value it refuses": ("def get_config():\n    raise ValueError('wrong size')\n", ["own.py: wrong size"]),
}  # fmt: skip


@pytest.mark.parametrize("overrides", [[], ["--config.steps=3"]])
@pytest.mark.parametrize("case", OWN)
def test_an_error_in_ones_own_config_names_file_line_and_error(case, overrides, parse, tmp_path):
    text, parts = OWN[case]
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        parse(f"--config={path}", *overrides)
    told = str(error.value)
    assert str(path) in told and told.count("\n") == 0 and "earlier failure" not in told
    for part in parts:
        assert part in told


def test_what_is_right_is_parsed(parse):
    values = parse(
        "--config", "configs/digits.py:vae", "--config.steps=7", "--config.model.channels=(8, 8, 8)",
        "--config.optim.learning_rate", "1e-3", "--num=4", "--nofloor",
    )  # fmt: skip
    config = values["config"].value
    assert (config.steps, config.model.channels, config.optim.learning_rate) == (7, (8, 8, 8), 1e-3)
    assert (config.objective.name, values["num"].value) == ("vae", 4)


def test_a_flag_without_effect_is_refused_and_a_default_is_not(parse):
    values = parse(DIGITS, "--num=4")
    command_line.refuse_unused(["share", "mode"], "needs --floor", values)
    with pytest.raises(UserError, match="--num=4 has no effect: it needs --floor"):
        command_line.refuse_unused(["share", "num"], "needs --floor", values)


def test_every_extra_is_installed_from_a_clone():
    """The package is in no index."""
    root = pathlib.Path(__file__).parent.parent
    for path in (*root.glob("introvae_jax/**/*.py"), *root.glob("docs/*.md"), root / "README.md"):
        assert "introvae_jax[" not in path.read_text(), path
