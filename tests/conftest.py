"""Four simulated devices, strict ranks, and small building blocks that several tests share."""

import os

# Before JAX starts: simulated devices deadlock when XLA's thread pool is smaller than twice their number.
os.environ["NPROC"] = "8"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import pathlib
import signal
import subprocess
import sys
import tempfile

# A suite that was started in the background ignores Ctrl-C, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiling is most of the work. What is compiled stays for the session, for every process and both of pytest-xdist's;
# LLVM's slow passes change no result that is tested.
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="introvae_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

os.environ["INTROVAE_JAX_ANNOUNCE_AFTER"] = "inf"  # what a slow machine would print is no part of what is tested

import jax
import numpy as np
from PIL import Image
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).parent.parent


# Test files of the slow tier, below tests/: real processes, launchers, buckets, kills, compiled programs, long runs.
SLOW = (
    "checkpoints/test_read_errors.py", "data/test_prepare.py", "evaluation/test_command.py",
    "features/test_inception.py", "launch/test_local_launcher.py", "launch/test_local_training.py",
    "launch/test_slurm_job.py", "launch/test_tpu_vm.py", "launch/test_tpu_worker.py", "nets/test_added_network.py",
    "planning/test_plan.py", "reporting/test_announcements.py", "reporting/test_tracing.py", "test_bad_input.py",
    "test_buckets.py", "test_compilation_cache.py", "test_pipelines.py", "test_soak.py", "test_startup.py",
    "test_strangers.py", "training/test_compiled.py", "training/test_feed.py", "training/test_loop.py",
    "training/test_processes.py", "training/test_rollbacks.py", "training/test_scoring.py", "training/test_survival.py",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.relative_to(ROOT / "tests").as_posix() in SLOW:
            item.add_marker("slow")


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail skipped tests, unless their reason is 'needs ...'")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith("needs "):  # what a machine cannot do, in contrast to a package that is missing
            report.outcome, report.longrepr = "failed", f"skipped: {reason}"
    return report


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Those of one file are of no use to the next, and take gigabytes by the end."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def one_device():
    """The environment of a command that a user starts: no simulated devices."""
    return {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "NPROC")}


@pytest.fixture
def run_command(one_device):
    """A function that runs `python -m MODULE ARGS` in the repository as a user would, on one device."""

    def run(module, *args, timeout=300, **environment):
        command = [sys.executable, "-m", module, *args]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=one_device | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def image_folder(tmp_path):
    """A folder of 12 smooth colour images of 40x30 pixels, some nested, as png, jpg and webp."""
    folder = tmp_path / "images"
    (folder / "nested").mkdir(parents=True)
    key = np.random.default_rng(0)
    for i in range(12):
        corners = Image.fromarray(key.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        place = folder / ("nested" if i % 4 == 0 else "") / f"{i:02d}.{('png', 'jpg', 'webp')[i % 3]}"
        corners.resize((40, 30), Image.Resampling.BICUBIC).save(place)
    return folder
