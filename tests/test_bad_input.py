"""Bad input on the command line: one clear line, exit status 1, no traceback."""

import pytest

DIGITS = "--config=configs/digits.py"
CASES = {
    "misspelt key": ([DIGITS, "--config.batch_sise=8"], ["batch_sise", "batch_size"]),
    "wrong type": ([DIGITS, "--config.batch_size=many"], ["batch_size", "many"]),
    "no config": ([], ["--config"]),
    "config that is not there": (["--config=configs/digit.py"], ["configs/digit.py"]),
    "wrong argument of a config": (["--config=configs/celebahq.py:512"], ["512,paper: no such settings", "128,paper"]),
    "unknown flag": ([DIGITS, "--steps=5"], ["steps"]),
    "word that is no flag": ([DIGITS, "train"], ["unexpected argument 'train'"]),
    "size": ([DIGITS, "--config.data.source=folder", "--config.data.size=48"],
             ["config.data.size = 48", "power of two"]),
    "channels": ([DIGITS, "--config.model.channels=(8, 8)"], ["config.model.channels = (8, 8)", "3 channel counts"]),
    "no data": (["--config=configs/celebahq.py", "--config.data.path=/nowhere"],
                ["celeb_a_hq/256", "introvae_jax.prepare --source=IMAGES --name=celeb_a_hq"]),
}  # fmt: skip


def check_refusal(result, parts):
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("introvae_jax: error: ")
    for part in parts:
        assert part in line


@pytest.mark.parametrize("case", CASES)
def test_one_line_that_names_the_thing_and_the_way_out(case, run_command, tmp_path):
    args, parts = CASES[case]
    check_refusal(run_command("introvae_jax.main", *args, f"--workdir={tmp_path / 'run'}"), parts)
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_by_the_devices(run_command, tmp_path, monkeypatch):
    import jax

    from configs import digits
    from introvae_jax.errors import UserError
    from introvae_jax.training import train_loop

    assert jax.device_count() == 4
    config = digits.get_config()
    config.batch_size = 30
    with pytest.raises(UserError, match=r"config.batch_size = 30: must be a multiple of the number of devices, 4"):
        train_loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sampling_from_nothing(run_command, tmp_path):
    check_refusal(run_command("introvae_jax.sample", f"--workdir={tmp_path}"), [str(tmp_path), "no checkpoints"])
    check_refusal(run_command("introvae_jax.sample"), ["--workdir"])


@pytest.mark.parametrize(
    ("flag", "needed"), [("--quality=80", "--format=jpeg"), ("--num_images=5", "--source=avatars")]
)
def test_preparing_refuses_a_flag_without_effect(flag, needed, run_command, tmp_path):
    args = (f"--source={tmp_path}", "--name=set", "--resolution=16", flag)
    check_refusal(run_command("introvae_jax.prepare", *args), [flag, "has no effect", needed])
