"""Plants one fault after another in a copy of the package and checks that the fast tests catch each.

    python -m tests.planted_faults                 # all, a few minutes
    python -m tests.planted_faults hinge checksum  # some

Each fault runs the test files that should catch it, with the markers of the fast tier. Prints a table; exit status 1 if
a fault is missed.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent


class Fault(NamedTuple):
    """path: below introvae_jax/. old -> new: the fault. tests: the files that should catch it, below tests/."""

    path: str
    old: str
    new: str
    tests: str


FAULTS = {
    "hinge": Fault(
        "objectives/introvae.py",
        "slack = margin - kl\n            return",
        "slack = kl - margin\n            return",
        "objectives/test_introvae.py",
    ),
    "stop_gradient": Fault(
        "objectives/introvae.py", "images = jax.lax.stop_gradient(images)", "images = images", "training/test_step.py"
    ),
    "decoder_samples": Fault(
        "objectives/introvae.py",
        "self.alpha_d * (kl_rec + kl_fake)",
        "self.alpha_d * kl_rec",
        "objectives/test_known_bugs.py",
    ),
    "batch_summed_kl": Fault(
        "objectives/terms.py", "- 1.0 - logvar, axis=-1)", "- 1.0 - logvar)[None]", "objectives/test_terms.py"
    ),
    "local_mean": Fault(
        "parallel.py",
        "return self.average(jnp.mean(values, axis=0))",
        "return jnp.mean(values, axis=0)",
        "training/test_step.py",
    ),
    "key_reuse": Fault(
        "training/step.py",
        "EPS, PRIOR, MIRROR, CALIBRATION, DEQUANTIZE, EPS_REC, EPS_FAKE = range(7)",
        "EPS = PRIOR = 0\nMIRROR, CALIBRATION, DEQUANTIZE, EPS_REC, EPS_FAKE = range(2, 7)",
        "training/test_step.py",
    ),
    "ema": Fault(
        "training/state.py",
        "optax.incremental_update(params, self.ema, 1.0 - decay)",
        "optax.incremental_update(params, self.ema, decay)",
        "training/test_step.py",
    ),
    "data_order": Fault(
        "data/loader.py", "_read_ahead(loaded[start:], threads)", "_read_ahead(loaded, threads)", "data/test_loader.py"
    ),
    "checksum": Fault(
        "checkpoints/digests.py", "if expected.get(path, digest) != digest]", "if False]", "checkpoints/test_digests.py"
    ),
    "frechet": Fault("metrics/frechet.py", "- 2 * cross", "- cross", "metrics/test_frechet.py"),
    "find_class": Fault(
        "torch_weights/unpickler.py",
        "            raise Refused(full)\n        return Global(full)",
        "            return super().find_class(module, name)\n        return Global(full)",
        "torch_weights/test_unpickler.py",
    ),
    "batch_norm": Fault(
        "nets/layers.py",
        "whole, var, mean_sq = jax.lax.pmean((mean, var, mean * mean), self.axis_name)",
        "whole, mean_sq = mean, mean * mean",
        "training/test_step.py",
    ),
}


def main() -> int:
    missed = 0
    print("| fault | file | caught by |\n|---|---|---|")
    for name in sys.argv[1:] or FAULTS:
        caught = plant(FAULTS[name])
        missed += not caught
        print(f"| {name} | {FAULTS[name].path} | {caught or 'NOTHING'} |", flush=True)
    return int(missed > 0)


def plant(fault: Fault) -> str:
    """The first test that fails with the fault; empty if all pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "runs", "__pycache__"))
        path = copy / "introvae_jax" / fault.path
        text = path.read_text(encoding="utf-8")
        if text.count(fault.old) != 1:
            raise SystemExit(f"{fault.path}: the line to replace is there {text.count(fault.old)} times: {fault.old!r}")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
        command = [sys.executable, "-m", "pytest", *options, f"tests/{fault.tests}"]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        if done.returncode not in (0, 1) or (done.returncode == 1) != bool(failed):
            raise SystemExit(f"{fault.tests} did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return failed[0] if failed else ""


if __name__ == "__main__":
    sys.exit(main())
