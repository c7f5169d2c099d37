"""The plan against the program that training runs, and the command's ends."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import digits
from introvae_jax.data import source
from introvae_jax.errors import UserError
from introvae_jax.planning import job, program, report, target
from introvae_jax.training import memory, parallel
from introvae_jax.training.run import Run


@pytest.fixture(scope="module")
def config():
    config = digits.get_config()
    config.model.channels, config.model.z_dim, config.batch_size = (4, 4, 8), 4, 8
    return config


@pytest.fixture(scope="module")
def planned(config):
    return job.plan(config, "tiny")


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """The run itself, with images, and its compiled step on one device."""
    run = Run(config, tmp_path_factory.mktemp("run"), source.open_splits(config.data),
              parallel.replicas(tuple(jax.devices()[:1])))  # fmt: skip
    state = run.replicas.replicate(run.fresh_state())
    images = run.replicas.split(run.splits.train[np.arange(8)])
    return state, images, run.replicas.map(run.make_step("introvae")).lower(state, images).compile()


def test_parameters_are_those_of_the_run(planned, trained):
    state = trained[0]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(player.params)) for player in (state.encoder, state.decoder)]
    assert list(planned.parameters) == sizes


def test_the_state_takes_what_its_arrays_take(planned, trained):
    state, images, _ = trained
    assert planned.program.memory.state == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert planned.program.memory.batch == images.nbytes


def test_flops_and_memory_are_those_of_the_training_program(planned, trained):
    real = program.describe(trained[2], 8, trained[1].nbytes, seconds=0.0)
    assert planned.program.flops == pytest.approx(real.flops, rel=1e-3)
    assert planned.program.moved == pytest.approx(real.moved, rel=1e-2)
    assert planned.program.memory.total == pytest.approx(real.memory.total, rel=1e-2)


def test_the_bound_without_compiling_is_below_what_is_compiled(config, planned):
    state, image = memory.least(config)
    assert 0 < state <= planned.program.memory.state
    assert 0 < 8 * image < planned.program.memory.batch + planned.program.memory.temporaries


@pytest.mark.parametrize("key", ["objective.name", "model.remat"])
def test_so_it_is_where_least_is_kept(config, key):
    """A VAE has the fewest passes; recomputed blocks keep the least."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: {"objective.name": "vae", "model.remat": True}[key]})
    compiled = program.measure(config, jax.devices()[0], 8).memory
    assert 0 < 8 * memory.least(config)[1] < compiled.batch + compiled.temporaries


def test_another_batch_takes_what_was_extrapolated(config, planned):
    real = program.measure(config, jax.devices()[0], 32)
    assert planned.memory(32) == pytest.approx(real.memory.total, rel=0.1)


def test_the_largest_batch_fits_and_one_more_does_not(planned):
    usable = planned.memory(37) + 0.5 * planned.an_image
    assert planned.largest_batch(usable) == 37
    assert planned.largest_batch(planned.memory(0)) == 0


def test_a_chip_too_small_is_told(planned):
    chip = report.Chip("small", "tpu", 1.0, planned.memory(3.5) / 2**30 / 0.97, 1.0, 1.0)
    assert report.verdict(planned, chip) == "fits with batch 3 a device"
    chip = report.Chip("smaller", "tpu", 1.0, planned.memory(0.5) / 2**30 / 0.97, 1.0, 1.0)
    assert report.verdict(planned, chip).startswith("does not fit")


def test_a_line_that_does_not_rise_promises_no_batch(planned):
    flat = dataclasses.replace(planned, other=dataclasses.replace(planned.program, batch=4))
    chip = report.Chip("large", "tpu", 1.0, 16, 1.0, 1.0)
    assert report.verdict(flat, chip) == "fits"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4.4 s"), (90, "1.5 min"), (9_000, "2.5 hours"), (864_000, "10 days")]
)
def test_times_are_told_in_a_unit_that_fits(seconds, text):
    assert report.duration(seconds) == text


def test_times_follow_from_flops_peak_and_utilisation():
    chip = report.Chip("one", "gpu", tflops=100, memory=1, bandwidth=1_000, link=1)
    assert chip.seconds(35e12, 0, "bfloat16", 0.35) == pytest.approx(1.0)
    assert chip.seconds(35e12, 0, "float32", 0.35) == pytest.approx(2.0)  # TF32
    assert chip.seconds(1e12, 5e12, "bfloat16") == pytest.approx(5.0)  # traffic is slower than arithmetic


def test_the_command_needs_no_images(run_command):
    done = run_command(
        "introvae_jax.plan", "--config=configs/folder.py", "--config.data.path=nowhere", "--config.data.size=16",
        "--config.model.channels=(4, 4)", "--config.model.z_dim=4", "--config.batch_size=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "TPU v5e" in done.stdout and "compiling the step for cpu, batch 8" in done.stderr


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--target=tpu_v9", "tpu_v9"),
        ("--utilisation=0", "utilisation"),
        ("--config.batch_size=0", "config.batch_size"),
        ("--config=configs/nothing.py", "configs/nothing.py"),
    ],
)
def test_a_wrong_flag_is_one_line(run_command, flag, told):
    done = run_command("introvae_jax.plan", "--config=configs/digits.py", flag)
    assert done.returncode == 1
    assert told in done.stderr and done.stderr.count("\n") == 1


def test_without_the_tpu_compiler_the_way_to_it_is_told(monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"--target=tpu_v5e: .* pip install libtpu"):
        target.devices("tpu_v5e")
