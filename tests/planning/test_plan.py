"""The plan against the program that training runs, and the command's ends."""

import dataclasses

import jax
import numpy as np
import pytest

from configs import digits
from introvae_jax import formatting, parallel
from introvae_jax.data import source
from introvae_jax.errors import UserError
from introvae_jax.experiment import Experiment
from introvae_jax.planning import compiled_step, planner, report, target
from introvae_jax.training import memory


@pytest.fixture(scope="module")
def config():
    config = digits.get_config()
    config.model.channels, config.model.z_dim, config.batch_size = (4, 4, 8), 4, 8
    return config


@pytest.fixture(scope="module")
def planned(config):
    return planner.plan(config, "tiny")


@pytest.fixture(scope="module")
def trained(config):
    """The state, a batch of real images and the step that training compiles, on one device."""
    run = Experiment(config, parallel.replicas(tuple(jax.devices()[:1])))
    state = run.replicas.replicate(run.init_state())
    images = run.replicas.split(source.open_splits(config.data).train[np.arange(8)])
    return state, images, run.replicas.map(run.make_step("introvae")).lower(state, images).compile()


def test_parameters_are_those_of_the_run(planned, trained):
    state = trained[0]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(network.params)) for network in (state.encoder, state.decoder)]
    assert list(planned.parameters) == sizes


def test_the_state_takes_what_its_arrays_take(planned, trained):
    state, images, _ = trained
    assert planned.program.memory.state == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert planned.program.memory.batch == images.nbytes


def test_flops_and_memory_are_those_of_the_training_program(planned, trained):
    real = compiled_step.describe(trained[2], 8, trained[1].nbytes, seconds=0.0)
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
    compiled = compiled_step.measure(config, jax.devices()[0], 8).memory
    assert 0 < 8 * memory.least(config)[1] < compiled.batch + compiled.temporaries


def test_another_batch_takes_what_was_extrapolated(config, planned):
    real = compiled_step.measure(config, jax.devices()[0], 32)
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
    assert formatting.rough_duration(seconds) == text


def test_times_follow_from_flops_peak_and_utilisation():
    chip = report.Chip("one", "gpu", tflops=100, memory=1, bandwidth=1_000, link=1)
    assert chip.seconds(35e12, 0, "bfloat16", 0.35) == pytest.approx(1.0)
    assert chip.seconds(35e12, 0, "float32", 0.35) == pytest.approx(2.0)  # TF32
    assert chip.seconds(1e12, 5e12, "bfloat16") == pytest.approx(5.0)  # traffic is slower than arithmetic


PROGRAM = compiled_step.Program(
    batch=16,
    memory=compiled_step.Memory(2**20, 2**20, 2**20, 0),
    flops=0.6e12,
    moved=23.2e9,
    operations=3_000,
    seconds=1.0,
)
A100 = report.Chip("A100-80", "gpu", 312, 80, 2_039, 300)


def of_celebahq_128(**changes):
    """The plan of docs/scaling.md's table: 32.5 ms of work, 165 exchanges, 92.7 MB of gradients."""
    made = report.Plan(
        title="t", parameters=(23_169_027, 0), program=PROGRAM, other=dataclasses.replace(PROGRAM, batch=8),
        steps=1_000, dtype="bfloat16", exchanges=165, compiled_for="cpu",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def test_several_chips_lose_what_their_exchanges_take():
    """docs/scaling.md: a batch of 16 over 8 A100 keeps 51%."""
    small = dataclasses.replace(PROGRAM, operations=0)
    plan = of_celebahq_128(program=small)
    (one, _), (eight, _) = plan.seconds(A100, 0.35), plan.seconds(A100, 0.35, 8)
    assert one == pytest.approx(32.5e-3, rel=0.01)
    assert one / (8 * eight) == pytest.approx(0.51, abs=0.02)


def test_a_small_job_takes_what_starting_its_operations_takes():
    plan = of_celebahq_128(program=dataclasses.replace(PROGRAM, flops=1e9, moved=1e8, operations=1_000))
    assert plan.seconds(A100, 0.35) == (pytest.approx(1_000 * 3e-6), True)
    assert plan.seconds(A100, 1.0)[0] == plan.seconds(A100, 0.35)[0]
    assert plan.seconds(A100, 0.35, 8)[0] > plan.seconds(A100, 0.35)[0]  # nothing is gained, exchanges are added
    (row,) = [line for line in report.table(plan, 0.35, 8) if line.startswith("A100-80")]
    assert "3 s*" in row
    assert not plan.seconds(A100, 0.001)[1]


def test_the_text_says_what_is_an_estimate():
    told = " ".join(report.text(of_celebahq_128(), 0.35, 8).split())
    assert "All times are ESTIMATES" in told and "3,000 operations" in told and "165 times" in told


def test_operations_are_what_the_entry_computation_runs():
    assert (
        compiled_step.operations(
            "%inner (x: f32[2]) -> f32[2] {\n  ROOT %a = f32[2]{0} add(%x, %x)\n}\n\n"
            "ENTRY %main (p: f32[2]) -> (f32[2]) {\n  %p = f32[2]{0} parameter(0)\n"
            "  %f = f32[2]{0} fusion(%p), calls=%i\n"
            "  %c = (f32[2]{0}, f32[4]{0}) custom-call(%f), target=x(y)\n  ROOT %t = (f32[2]{0}) tuple(%f)\n}\n"
        )
        == 2
    )


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


@pytest.mark.parametrize("missing", ["memory_analysis", "cost_analysis", "as_text"])
def test_a_compiler_that_reports_nothing_is_one_line(missing, monkeypatch):
    compiled = jax.jit(lambda x: x + 1).lower(1.0).compile()
    monkeypatch.setattr(type(compiled), missing, lambda _: None)
    with pytest.raises(UserError, match="--target"):
        compiled_step.describe(compiled, 1, 0, seconds=0.0)
