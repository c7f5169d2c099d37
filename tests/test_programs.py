"""Compiled programs are kept between commands."""

import pathlib

import pytest
from tiny import DIGITS

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
