"""What all launchers share: clean shell, --dry-run without a call, a usage text."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPTS = sorted(p for p in (ROOT / "launch").rglob("*") if p.suffix in (".sh", ".sbatch"))
DRY_RUNS = {
    "local.sh": ("--dry-run", "2", "--config=c.py"),
    "tpu_vm.sh": ("--dry-run", "run", "ivae", "zone", "v5litepod-16", "--config=c.py"),
    "slurm.sbatch": ("--dry-run", "--config=c.py"),
    "gke/render.sh": ("--dry-run", "gpu", "ivae", "image", "nvidia-l4", "2x1", "--", "--config=c.py"),
}
WRONG = [
    ("local.sh",),
    ("local.sh", "two", "--config=c.py"),
    ("local.sh", "2"),
    ("local.sh", "--restarts=many", "2", "--config=c.py"),
    ("local.sh", "--gups", "2", "--config=c.py"),
    ("tpu_vm.sh", "create", "ivae", "zone"),
    ("tpu_vm.sh", "destroy", "ivae", "zone"),
    ("tpu_vm.sh", "run", "ivae", "zone", "v5litepod-8"),
    ("tpu_vm.sh", "--poll=soon", "watch", "ivae", "zone"),
    ("tpu_worker.sh",),
    ("tpu_worker.sh", "train"),
    ("slurm.sbatch",),
    ("slurm.sbatch", "--config=c.py"),  # outside Slurm
    ("slurm_task.sh", "python"),
    ("gke/render.sh", "tpu", "ivae", "image"),
    ("gke/render.sh", "cpu", "ivae", "image", "accelerator", "2x2", "--", "--config=c.py"),
    ("gke/render.sh", "tpu", "ivae", "image", "accelerator", "4x4"),
]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck comes with '.[test]'")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    result = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_executed(script):
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize("script", DRY_RUNS)
def test_a_dry_run_shows_the_flags_and_calls_nothing(launch, commands, script):
    result = launch(script, *DRY_RUNS[script], PYTHON="no-such-python")
    assert result.returncode == 0, result.stderr
    assert "--config=c.py" in result.stdout
    assert commands.calls() == []


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_wrong_arguments_are_answered_with_the_usage(launch, commands, arguments):
    result = launch(*arguments)
    assert result.returncode == 1
    assert f"  launch/{arguments[0]} [" in result.stderr or f" launch/{arguments[0]} " in result.stderr
    assert result.stdout == ""
    assert commands.calls() == []
