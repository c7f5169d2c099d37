"""The command as a user starts it; what it is made of is tested in process."""

import pytest

from introvae_jax.evaluation import evaluator


def test_a_run_is_scored_and_told(run, run_command, tmp_path):
    out = tmp_path / "scores.json"
    result = run_command(
        "introvae_jax.evaluate", f"--workdir={run}", "--metrics=swd6,msssim2", "--weights=raw", "--floor", "--seed=3",
        f"--out={out}", "--batch_size=4", INTROVAE_JAX_CACHE=str(tmp_path),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert out.with_suffix(".md").read_text() in result.stdout + "\n"
    assert str(out) in result.stdout
    options = evaluator.Options(["swd6", "msssim2"], workdir=str(run), weights="raw", floor=True, seed=3,
                          out=str(tmp_path / "again.json"))  # fmt: skip
    four_devices, _ = evaluator.evaluate(options)
    assert four_devices == out.with_suffix(".md").read_text().rstrip()


def test_a_wrong_call_is_one_line(folders, run_command, tmp_path):
    fake = tmp_path / "fake"
    fake.mkdir()
    wrong = ["--metrics=swd", f"--real={folders['real']}", f"--fake={fake}"]
    for args, said in ((wrong, "no readable image found"), (["--batch_size=1", *wrong], "--batch_size=1")):
        result = run_command("introvae_jax.evaluate", *args)
        assert result.returncode == 1
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("introvae_jax: error: ")
        assert said in line


FOLDERS = ("--real=R", "--fake=F", "--metrics=swd")
UNUSED = {
    "step of two folders": ([*FOLDERS, "--step=3"], "--step=3", "--workdir=RUN"),
    "split beside other images": (
        ["--workdir=W", "--real=R", "--metrics=swd", "--split=test"],
        "--split=test",
        "--real",
    ),
    "floor of the encoder": (["--workdir=W", "--metrics=reconstruction", "--floor"], "--floor", "swd"),
    "resize without Inception": ([*FOLDERS, "--resize=tensorflow"], "--resize=tensorflow", "fid"),
    "other images without ood": (["--workdir=W", "--metrics=swd", "--ood=O"], "--ood=O", "--metrics=ood"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_a_flag_without_effect_is_refused(case, run_command):
    args, flag, needed = UNUSED[case]
    result = run_command("introvae_jax.evaluate", *args)
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert f"{flag}" in line and "has no effect: it needs" in line and needed in line
