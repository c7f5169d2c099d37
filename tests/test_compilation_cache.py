"""Compiled programs are kept between commands."""

import pathlib
import subprocess
import sys

import pytest
from tiny import DIGITS

ROOT = pathlib.Path(__file__).parent.parent
TINY = (*DIGITS, "--config.objective.warmup_steps=0", "--config.steps=1")


@pytest.fixture
def one_device(one_device):
    """Of a user, who has not said where compiled programs go."""
    return {name: value for name, value in one_device.items() if name != "JAX_COMPILATION_CACHE_DIR"}


def train(run_command, workdir, **environment):
    run = run_command("introvae_jax.main", *TINY, f"--workdir={workdir}", **environment)
    assert run.returncode == 0, run.stderr
    return run.stderr


def kept(folder):
    """When each program was written, and its bytes."""
    paths = {path.name: path.stat() for path in pathlib.Path(folder).rglob("*-cache")}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in paths.items()}


def test_a_second_run_finds_what_the_first_compiled(run_command, tmp_path):
    train(run_command, tmp_path / "one", INTROVAE_JAX_CACHE=str(tmp_path / "cache"))
    programs = kept(tmp_path / "cache" / "programs")
    assert programs
    train(run_command, tmp_path / "two", INTROVAE_JAX_CACHE=str(tmp_path / "cache"))
    again = kept(tmp_path / "cache" / "programs")
    assert {name: again[name] for name in programs} == programs
    step = max(size for _, size in programs.values())
    small = [again[name][1] for name in again.keys() - programs.keys()]  # that took their half second this time
    assert max(small, default=0) < step / 4


START = """
import warnings
import jax, jax.numpy as jnp
from introvae_jax import compilation_cache
compilation_cache.SHORTEST = 0.0
compilation_cache.enable()
print(jax.jit(lambda x: (3 * x).sum())(jnp.arange(8.0)))
warnings.warn("another warning")
"""


def start(environment, cache):
    done = subprocess.run(
        [sys.executable, "-c", START], cwd=ROOT, env=environment | {"INTROVAE_JAX_CACHE": str(cache)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "84.0\n" and "another warning" in done.stderr
    return done.stderr


def half(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("damage", [half, flipped, lambda data: b""])
def test_damaged_entries_are_replaced_without_a_warning(damage, one_device, tmp_path):
    start(one_device, tmp_path)
    entries = list(tmp_path.rglob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(damage(entry.read_bytes()))
    damaged = kept(tmp_path)
    assert "persistent compilation cache" not in start(one_device, tmp_path)
    replaced = kept(tmp_path)
    assert replaced.keys() == damaged.keys() and all(replaced[name] != damaged[name] for name in damaged)
    assert "persistent compilation cache" not in start(one_device, tmp_path)
    assert kept(tmp_path) == replaced


def test_jax_own_variable_goes_first(run_command, tmp_path):
    train(
        run_command, tmp_path / "run",
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"), INTROVAE_JAX_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert kept(tmp_path / "mine")
    assert not kept(tmp_path / "cache")


def test_a_place_that_cannot_be_written_stops_nobody(run_command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = train(run_command, tmp_path / "run", INTROVAE_JAX_CACHE=str(tmp_path / "file" / "cache"))
    assert "Traceback" not in said
