"""Stand-ins: a training that ends as planned, and commands of clouds and clusters that answer from a script."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent

# Ends as plan.json says for its process and attempt: with a status, by a signal (negative), "told" (75 after SIGTERM,
# SIGINT or SIGHUP) or "hang" (never, whatever comes).
MAIN = """
import json, os, pathlib, signal, sys, time

process = int(os.environ.get("JAX_PROCESS_ID", 0))
records = pathlib.Path("records")
attempt = len(list(records.glob(f"{process}_*.json")))
plan = json.loads(pathlib.Path("plan.json").read_text())[process]
end = plan[min(attempt, len(plan) - 1)]
signals = []

def note(number, _):
    signals.append(signal.Signals(number).name)
    record()

def record():
    settings = {k: v for k, v in os.environ.items() if k.startswith(("JAX_", "CUDA_"))}
    text = json.dumps({"argv": sys.argv[1:], "environment": settings, "signals": signals})
    (records / f"{process}_{attempt}.new").write_text(text)
    (records / f"{process}_{attempt}.new").rename(records / f"{process}_{attempt}.json")

signal.signal(signal.SIGTERM, note)
signal.signal(signal.SIGINT, note)
signal.signal(signal.SIGHUP, note)
record()
print(f"out of {process}", flush=True)
print(f"err of {process}", file=sys.stderr, flush=True)
while end == "hang" or (end == "told" and not signals):
    time.sleep(0.02)
if end == "told":
    time.sleep(0.3)  # saving: a second signal would be noted now
    (records / f"{process}.saved").touch()
    sys.exit(75)
if end < 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), -end)
sys.exit(end)
"""

# Notes its call and gives the next answer of the first rule that fits; the last answer of a rule stays.
COMMAND = """#!{python} -IS
import fcntl, json, pathlib, re, sys

call = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
state = open({state!r}, "r+")
fcntl.flock(state, fcntl.LOCK_EX)
script = json.load(state)
script["calls"].append(call)
answers = next((a for rule, a in script["rules"] if re.search(rule, " ".join(call))), [["", 0]])
out, status = answers.pop(0) if len(answers) > 1 else answers[0]
state.seek(0)
state.truncate()
json.dump(script, state)
state.close()
print(out, file=sys.stderr if status else sys.stdout)
sys.exit(status)
"""


class Training:
    """A directory in which `python -m introvae_jax.main` is the stand-in."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        (folder / "records").mkdir()
        (folder / "introvae_jax").mkdir()
        (folder / "introvae_jax/__init__.py").touch()
        (folder / "introvae_jax/main.py").write_text(MAIN)
        (folder / "launch").symlink_to(ROOT / "launch")

    def plan(self, *processes: list) -> None:
        """For each process, how it ends at each attempt."""
        (self.folder / "plan.json").write_text(json.dumps(processes))

    def record(self, process: int, attempt: int = 0) -> dict:
        return json.loads((self.folder / f"records/{process}_{attempt}.json").read_text())

    def saved(self) -> list[str]:
        """The processes that came to the end of saving."""
        return sorted(p.stem for p in (self.folder / "records").glob("*.saved"))

    def attempts(self, process: int) -> int:
        return len(list((self.folder / "records").glob(f"{process}_*.json")))


class Commands:
    """Stand-ins for commands on the PATH."""

    def __init__(self, folder: pathlib.Path, names: tuple[str, ...]) -> None:
        self.state = folder / "commands.json"
        self.state.write_text(json.dumps({"rules": [], "calls": []}))
        (folder / "bin").mkdir()
        for name in names:
            command = folder / "bin" / name
            command.write_text(COMMAND.format(python=sys.executable, state=str(self.state)))
            command.chmod(0o755)
        self.environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}"}

    def answer(self, rule: str, *answers: str | tuple[str, int]) -> None:
        """To calls in which the pattern `rule` is found: texts for stdout, or (text for stderr, status)."""
        script = json.loads(self.state.read_text())
        script["rules"].append([rule, [(a, 0) if isinstance(a, str) else a for a in answers]])
        self.state.write_text(json.dumps(script))

    def calls(self, pattern: str = "") -> list[str]:
        """The calls so far, in order, as lines."""
        lines = [" ".join(call) for call in json.loads(self.state.read_text())["calls"]]
        return [line for line in lines if re.search(pattern, line)]


@pytest.fixture
def training(tmp_path):
    return Training(tmp_path)


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path, ("gcloud", "kubectl", "scontrol", "squeue", "git", "curl"))


@pytest.fixture
def environment(commands):
    """That of a launcher: the stand-ins on the PATH, and nothing that the tests set for JAX."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "SLURM_", "CUDA_", "XLA_"))}
    return clean | commands.environment | {"PYTHON": sys.executable}


@pytest.fixture
def launch(tmp_path, environment):
    """A function that runs launch/SCRIPT in the test's directory."""

    def run(script, *args, timeout=60, **settings):
        command = ["bash", ROOT / "launch" / script, *args]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | settings,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
