"""Commands as a user starts them say what they are doing; every phase is announced, for a variable says so."""

import re

from tiny import DIGITS

SHORT = (*DIGITS, "--config.objective.warmup_steps=4", "--config.log.every=4", "--config.eval.every=8")
SWD = "--config.eval.metrics=('swd100','reconstruction20')"


def phases(text):
    """What was announced, in order, without numbers and repetitions."""
    return list(dict.fromkeys(re.sub(r" \.\.\..*", "", line) for line in text.splitlines() if " ..." in line))


def in_order(expected, found):
    rest = iter(found)
    return all(any(each.startswith(what) for each in rest) for what in expected)


def test_training_sampling_and_scoring_announce_their_phases(tmp_path, run_command):
    workdir = f"--workdir={tmp_path / 'run'}"
    done = run_command(
        "introvae_jax.main", *SHORT, SWD, "--config.steps=8", workdir, INTROVAE_JAX_ANNOUNCE_AFTER="0"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [
        "importing JAX", "starting the devices", "opening the images", "creating the networks", "training",
        "compiling the step (vae)", "compiling the step (introvae)", "measuring BatchNorm statistics",
        "drawing pictures", "drawing the curves", "saving the checkpoint of step 8", "scoring step 8",
        "generating images", "computing swd", "encoding held-out images",
    ]  # fmt: skip
    assert in_order(expected, phases(done.stderr)), done.stderr
    log = (tmp_path / "run/log.txt").read_text()
    assert [line[20:] for line in log.splitlines()] == done.stderr.splitlines()

    again = run_command(
        "introvae_jax.main", *SHORT, SWD, "--config.steps=10", workdir, INTROVAE_JAX_ANNOUNCE_AFTER="0"
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "loading the checkpoint of step 8" in phases(again.stderr)
    assert f"{tmp_path / 'run'}/config.json: changed since the last start: config.steps = 8, now 10" in again.stderr

    out = f"--out={tmp_path / 'samples'}"
    sampled = run_command("introvae_jax.sample", workdir, "--num=70", out, INTROVAE_JAX_ANNOUNCE_AFTER="0")
    assert sampled.returncode == 0, sampled.stderr
    assert in_order(["opening", "loading the checkpoint of step 10", "sampling"], phases(sampled.stderr))
    assert "sampling: 70/70 images" in sampled.stderr
