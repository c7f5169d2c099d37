"""The trained model as a user holds it, and the sampling command, on a run of a few steps."""

import itertools

import numpy as np
from PIL import Image
import pytest

from configs import digits, toy2d
import introvae_jax
from introvae_jax import pictures, sampling
from introvae_jax.errors import UserError
from introvae_jax.training import train_loop


def tiny(norm, objective="introvae"):
    config = digits.get_config(objective)
    config.steps, config.batch_size = 6, 8
    config.objective.warmup_steps = 0 if objective == "age" else 3
    config.model.channels, config.model.z_dim, config.model.norm = (8, 8, 8), 5, norm
    config.checkpoint.every, config.checkpoint.calibration_batches = 3, 2
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "run"
    train_loop.train(tiny("batch"), path)
    return path


@pytest.fixture(scope="module")
def trained(workdir):
    return introvae_jax.load(workdir)


def test_shapes_ranges_and_types(trained):
    images = trained.sample(3)
    assert (images.shape, images.dtype) == ((3, 32, 32, 1), np.float32)
    assert images.min() >= 0
    assert images.max() <= 1
    mu, logvar = trained.encode(images)
    assert mu.shape == logvar.shape == (3, 5)
    np.testing.assert_allclose(trained.reconstruct(images), trained.decode(mu, posterior=True))
    np.testing.assert_allclose(trained.encode(pictures.to_uint8(images))[0], mu, atol=0.05)
    assert (trained.step, trained.weights) == (6, "ema")


def test_a_seed_gives_the_same_image_whatever_the_batch(workdir, trained):
    all_at_once = trained.sample(12, seed=5)
    np.testing.assert_array_equal(trained.sample(1, seed=9)[0], all_at_once[4])
    for batch_size in (1, 3, 16):
        other = introvae_jax.load(workdir, batch_size=batch_size).sample(12, seed=5)
        np.testing.assert_allclose(other, all_at_once, atol=1e-5)  # a batch of another size rounds otherwise
    assert len({image.tobytes() for image in all_at_once}) == 12


def test_raw_weights_and_earlier_steps_differ(workdir, trained):
    samples = [
        introvae_jax.load(workdir, step=step, weights=weights).sample(2)
        for step, weights in itertools.product((3, 6), ("ema", "raw"))
    ]
    for a, b in itertools.combinations(samples, 2):
        assert not np.array_equal(a, b)
    np.testing.assert_array_equal(samples[2], trained.sample(2))


def test_what_is_not_there_is_named(workdir, tmp_path):
    with pytest.raises(UserError, match="no checkpoint of step 4; there are 3, 6"):
        introvae_jax.load(workdir, step=4)
    for step in ("last", 6.0, "6x"):
        with pytest.raises(UserError, match="must be latest, best or a number"):
            introvae_jax.load(workdir, step=step)
    with pytest.raises(UserError, match="no checkpoints there"):
        introvae_jax.load(tmp_path)


def test_a_step_may_be_named_as_the_commands_take_it(workdir, trained):
    for step in ("latest", "6", 6, np.int64(6), None):
        assert introvae_jax.load(workdir, step=step) == trained
    assert introvae_jax.load(workdir, step="3").step == 3


def test_networks_without_batch_norm_are_stored_and_restored_too(tmp_path):
    train_loop.train(tiny("group"), tmp_path / "run")
    assert introvae_jax.load(tmp_path / "run").sample(2).shape == (2, 32, 32, 1)


@pytest.mark.parametrize("objective", ["soft_introvae", "age"])
def test_the_other_objectives_train_and_sample_by_the_same_commands(objective, tmp_path):
    train_loop.train(tiny("batch", objective), tmp_path / "run")
    trained = introvae_jax.load(tmp_path / "run")
    images = trained.sample(2)
    assert images.shape == trained.reconstruct(images).shape == (2, 32, 32, 1)
    if objective == "age":  # latents are directions: their length does not matter
        z = trained.latents([0, 1])
        np.testing.assert_allclose(trained.decode(3 * z), trained.decode(z), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(trained.encode(images)[0], axis=1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def points_workdir(tmp_path_factory):
    config = toy2d.get_config("rings,introvae")
    config.steps, config.objective.warmup_steps, config.model.width = 20, 10, 16
    config.checkpoint.every = config.log.pictures_every = config.log.every = 10
    path = tmp_path_factory.mktemp("points") / "run"
    train_loop.train(config, path)
    return path


def test_a_model_of_points(points_workdir, run_command, tmp_path):
    trained = introvae_jax.load(points_workdir)
    points = trained.sample(100)
    assert points.shape == (100, 2)
    assert points.min() < 0  # not clipped as images are
    assert trained.encode(points)[0].shape == (100, 2)
    assert Image.open(points_workdir / "pictures/density_0000020.png").width > 1000
    for name in ("points.png", "points.csv"):
        result = run_command(
            "introvae_jax.sample", f"--workdir={points_workdir}", f"--out={tmp_path}/{name}", "--num=9"
        )
        assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1), points[:9], atol=1e-5)
    for args, words in ((["--mode=reconstruct", "--images=x"], "a model of points"), (["--out=x"], "NAME.csv")):
        result = run_command("introvae_jax.sample", f"--workdir={points_workdir}", *args)
        assert result.returncode == 1
        assert words in result.stderr


def test_slerp_keeps_to_the_sphere_and_hits_the_ends():
    z0, z1 = np.array([3.0, 0.0]), np.array([0.0, 3.0])
    path = sampling.slerp(z0, z1, 5)
    np.testing.assert_allclose(path[[0, -1]], [z0, z1], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 3.0, rtol=1e-6)
    np.testing.assert_allclose(path[2], [3 / np.sqrt(2)] * 2, rtol=1e-6)
    np.testing.assert_allclose(sampling.slerp(z0, 2 * z0, 3)[1], 1.5 * z0)  # no angle: a straight line


def test_sample_command(workdir, run_command, tmp_path):
    result = run_command("introvae_jax.sample", f"--workdir={workdir}", f"--out={tmp_path}/grid.png", "--num=9")
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "grid.png").size == (3 * 130 - 2, 3 * 130 - 2)  # four times as large
    result = run_command(
        "introvae_jax.sample", f"--workdir={workdir}", f"--out={tmp_path}/single", "--num=70", "--seed=3"
    )
    assert result.returncode == 0, result.stderr
    names = sorted(p.name for p in (tmp_path / "single").iterdir())
    assert (len(names), names[0], names[-1]) == (70, "seed_000003.png", "seed_000072.png")
    again = introvae_jax.load(workdir).sample(1, seed=72)[0, ..., 0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "single/seed_000072.png")), pictures.to_uint8(again))


def test_reconstruct_and_interpolate_commands(workdir, run_command, image_folder, tmp_path):
    common = (f"--workdir={workdir}", f"--images={image_folder}")
    result = run_command("introvae_jax.sample", *common, "--mode=reconstruct", f"--out={tmp_path}/r.png")
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "r.png").size == (12 * 130 - 2, 2 * 130 - 2 + 16)  # 12 pairs, six a row
    result = run_command("introvae_jax.sample", *common, "--mode=reconstruct", f"--out={tmp_path}/r")
    assert len(list((tmp_path / "r").iterdir())) == 12
    result = run_command("introvae_jax.sample", *common, "--mode=interpolate", f"--out={tmp_path}/i.png", "--num=7")
    assert Image.open(tmp_path / "i.png").size == (7 * 130 - 2, 128)
    result = run_command(
        "introvae_jax.sample", common[0], "--mode=interpolate", "--seeds=3,7", f"--out={tmp_path}/s", "--num=4"
    )
    assert result.returncode == 0, result.stderr
    first = np.asarray(Image.open(tmp_path / "s/path_0000.png"))
    np.testing.assert_array_equal(first, pictures.to_uint8(introvae_jax.load(workdir).sample(1, seed=3)[0, ..., 0]))


@pytest.mark.parametrize(
    ("args", "part"),
    [(["--mode=interpolate"], "takes either --seeds=A,B or --images"),
     (["--mode=interpolate", "--seeds=3,99999999999"], "seed 99999999999: must be"),
     (["--mode=interpolate", "--seeds=1,x"], "must be two whole numbers"),
     (["--mode=reconstruct"], "needs --images=DIR"),
     (["--mode=reconstruct", "--images=nowhere"], "nowhere: no such file or folder"),
     (["--step=5"], "no checkpoint of step 5")],
)  # fmt: skip
def test_wrong_requests_are_one_line(workdir, run_command, args, part):
    result = run_command("introvae_jax.sample", f"--workdir={workdir}", *args)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("introvae_jax: error: ")
    assert part in line
