"""A tiny trained run, small folders of images, and a cache of statistics of our own."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from small import blobs, write
from tiny import DIGITS

from introvae_jax.evaluation.extractors import FeatureExtractor, FeatureExtractors

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where statistics are kept; nothing is there yet."""
    monkeypatch.setenv("INTROVAE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache" / "statistics"


@pytest.fixture(scope="session")
def run(tmp_path_factory, one_device):
    """The work directory of a run of two steps: a VAE of the smallest network on the embedded digits."""
    workdir = tmp_path_factory.mktemp("evaluation") / "run"
    command = (
        sys.executable, "-m", "introvae_jax.main", *DIGITS, "--config.objective.name=vae", "--config.steps=2",
        "--config.objective.warmup_steps=0", "--config.checkpoint.every=1", f"--workdir={workdir}",
    )  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=one_device, check=True, timeout=300, capture_output=True)
    return workdir


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two folders of 20 images of one kind, by name."""
    root = tmp_path_factory.mktemp("folders")
    return {name: write(root / name, blobs(20, seed)) for seed, name in enumerate(("real", "fake"))}


@pytest.fixture
def cheap(monkeypatch):
    """A few pixels in place of AlexNet's features, where the network itself is not what is tested."""
    make = FeatureExtractors.make

    def cheaper(extractors, name):
        if name != "alexnet":
            return make(extractors, name)
        extract = lambda images: np.float32(images.reshape(len(images), -1)[:, 5::397])  # noqa: E731
        return FeatureExtractor(extract, {"network": "pixels", "sha256": "0" * 64, "resize": "none"})

    monkeypatch.setattr(FeatureExtractors, "make", cheaper)
