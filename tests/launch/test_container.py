"""launch/Dockerfile: linted, and everything that it copies is there and let through."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "launch/Dockerfile"


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint comes with '.[test]'")
def test_hadolint_finds_nothing():
    result = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_what_is_copied_suffices_to_build_the_package_and_to_train(tmp_path):
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE.read_text(), re.M)
    names = " ".join(copied).split()
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
        else:
            shutil.copy(ROOT / name, tmp_path)
    command = [sys.executable, "setup.py", "--quiet", "build"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "build/lib/introvae_jax/data/digits/digits.npz").exists()
    assert (tmp_path / "configs/digits.py").exists()
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_through == set(names)
