"""A command from its first line on: signals, and output that cannot be written."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PLAN = (sys.executable, "-m", "introvae_jax.plan", "--config=configs/digits.py")


def wait_for_handlers(process):
    """Returns once SIGTERM has a handler, which Python does not install by itself."""
    deadline, caught = time.monotonic() + 20, 0
    while not caught & 1 << (signal.SIGTERM - 1):
        assert process.poll() is None
        assert time.monotonic() < deadline, "no handler for SIGTERM"
        time.sleep(0.001)
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)


@pytest.mark.parametrize(("number", "tries"), [(signal.SIGINT, 10), (signal.SIGTERM, 3), (signal.SIGHUP, 3)])
def test_a_signal_while_a_command_imports_or_compiles_ends_it_at_once(one_device, tmp_path, number, tries):
    """At delays from the first import to the middle of compiling."""
    fresh = one_device | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    for delay in np.linspace(0, 6, tries):
        with subprocess.Popen(PLAN, cwd=ROOT, env=fresh, stderr=subprocess.PIPE, text=True) as process:
            wait_for_handlers(process)
            time.sleep(delay)
            process.send_signal(number)
            sent = time.monotonic()
            said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, (delay, said)
        assert said.splitlines()[-1].startswith(f"introvae_jax: error: {number.name}: interrupted"), (delay, said)
        assert "Traceback" not in said
        assert time.monotonic() - sent < 5, delay


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=60, check=False, **options)


COMMAND = "import sys; sys.argv = ['-m']; import introvae_jax; "  # as python -m introvae_jax.COMMAND begins
PRINTS = COMMAND + "print('out'); print('err é', file=sys.stderr); sys.exit(3)"


@pytest.mark.parametrize("broken", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["full", "pipe", "closed"])
def test_output_that_cannot_be_written_changes_no_exit_status(broken, how):
    other = {"stderr": "stdout", "stdout": "stderr"}[broken]
    if how == "full":
        with pathlib.Path("/dev/full").open("w") as target:
            result = run_python(PRINTS, **{broken: target, other: subprocess.PIPE})
    elif how == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        result = run_python(PRINTS, **{broken: writer, other: subprocess.PIPE})
        os.close(writer)
    else:
        number = {"stdout": 1, "stderr": 2}[broken]
        script = ["sh", "-c", f'exec "$@" {number}>&-', "sh", sys.executable, "-c", PRINTS]
        result = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 3
    expected = {"stdout": "err é\n", "stderr": "out\n"}[broken]
    said = getattr(result, other)
    if (broken, how) == ("stdout", "full"):
        assert "cannot write to standard output: No space left" in said
        said = said.split("\n", 1)[1]
    assert said == expected


def test_no_file_gets_the_number_of_a_closed_standard_stream(tmp_path):
    code = COMMAND + f"print(open({str(tmp_path / 'log')!r}, 'w').fileno() > 2)"
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60).stdout == b"True\n"


def test_characters_that_the_terminal_lacks_are_escaped(one_device):
    result = run_python(PRINTS, capture_output=True, env=one_device | {"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err \\xe9\n")


def test_commands_start_without_the_names_that_windows_lacks(one_device):
    """Also a signal is received, and a request to stop handles those that there are."""
    hide = "import os, signal; del signal.SIGHUP, os.preadv, os.set_blocking; "
    code = (
        hide
        + COMMAND
        + (
            "from introvae_jax import main\n"
            "from introvae_jax.training.stop import StopRequest\n"
            "import time\n"
            "with StopRequest() as stop:\n"
            "    signal.raise_signal(signal.SIGINT)\n"
            "    while not stop.agreed(): time.sleep(0.01)\n"
            "print(stop.requested)"
        )
    )
    result = run_python(code, capture_output=True, env=one_device)
    assert (result.returncode, result.stdout) == (0, "SIGINT\n"), result.stderr
