"""Fault injection into a training job: kills and stops its processes, fills its disk, damages its files.

    python -m benchmarks.soak --minutes=60 --faults=60
    python -m benchmarks.soak --minutes=2 --faults=10       a short form (tests/test_soak.py)

Several processes train the digits with tiny networks. Every few seconds one of many faults happens; then the job must
end by itself within a bounded time, each process with one line, and, started again, go on. A run that nothing happens
to is then trained to the same step: parameters, optimizer states and averages of both must be equal, bit for bit. With
root rights (or in a user namespace) the work directory lies on a small disk that can be filled, and with
--network each process is on a host of its own, whose link is cut and slowed.
"""

import collections
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags
import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks import soak_faults
from benchmarks.soak_job import Hosts, Job
from introvae_jax import errors

_MINUTES = flags.DEFINE_float("minutes", 60, "At least so long.", lower_bound=0)
_FAULTS = flags.DEFINE_integer("faults", 60, "At least so many.", lower_bound=1)
_PROCESSES = flags.DEFINE_integer("processes", 2, "Of the job.", lower_bound=2)
_NETWORK = flags.DEFINE_bool(
    "network", False, "Each process on a host of its own, with a link that breaks. Needs root."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of what happens and when.")
_OUT = flags.DEFINE_string("out", "", "Where logs and work directories stay; a temporary folder without it.")
_INSIDE = flags.DEFINE_bool("inside", False, "Set by itself: whether a mount namespace is ours.")

SILENCE = 8.0  # seconds, --peer_timeout of the job
BOUND = 90.0  # seconds within which a broken job must have ended
JOB = (
    "--config=configs/digits.py", "--config.model.channels=(4, 4, 8)", "--config.model.z_dim=4",
    "--config.batch_size=8", "--config.objective.warmup_steps=40", "--config.log.every=5",
    "--config.log.pictures_every=1000000", "--config.checkpoint.every=20", "--config.checkpoint.keep=3",
    "--config.checkpoint.calibration_batches=2", f"--peer_timeout={SILENCE}",
)  # fmt: skip


class Broken(errors.UserError):
    """The job did not behave as required."""


def main(_) -> None:
    if not _INSIDE.value and _may_mount():
        os.execvp("unshare", ["unshare", "-m" if os.geteuid() == 0 else "-rm", sys.executable, "-m", "benchmarks.soak",
                              "--inside", *sys.argv[1:]])  # fmt: skip
    with contextlib.ExitStack() as stack:
        out = pathlib.Path(_OUT.value or stack.enter_context(tempfile.TemporaryDirectory())).absolute()
        out.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "compiled"))
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        hosts = Hosts(_PROCESSES.value) if _NETWORK.value else None
        if hosts:
            stack.callback(hosts.close)
        disk = _small_disk(out / "disk", stack) if _INSIDE.value else None
        job = Job((*JOB, "--config.steps=1000000"), (disk or out) / "soaked", out / "logs", _PROCESSES.value, hosts)
        stack.callback(job.kill)
        rows = soak(soak_faults.Scene(job, np.random.default_rng(_SEED.value), disk, hosts))
        last = job.checkpoints()[-1]
        shutil.copytree(job.workdir, out / "kept", dirs_exist_ok=True)
        print(table(rows, job.lives, last), flush=True)
        whole = Job((*JOB, f"--config.steps={last}"), out / "unbroken", out / "logs_unbroken", _PROCESSES.value, hosts)
        stack.callback(whole.kill)
        whole.start()
        if whole.wait(6 * 3600) or any(whole.statuses()):
            raise Broken(f"the unbroken run ended with {whole.statuses()}: {whole.said()}")
        print(f"{compare(job.workdir, whole.workdir, last)} arrays of step {last:,} are equal, bit for bit")


def soak(scene: soak_faults.Scene) -> list[tuple[soak_faults.Fault, float, int, str]]:
    """Faults until time and number are reached: each with seconds until the job had ended, steps lost, a line said."""
    kinds = [*soak_faults.PROCESSES, *soak_faults.FILES]
    kinds += soak_faults.DISK if scene.disk else ()
    kinds += soak_faults.NETWORK if scene.hosts else ()
    job, rows, deck, until = scene.job, [], [], time.monotonic() + 60 * _MINUTES.value
    job.start()
    while time.monotonic() < until or sum(fault.is_one for fault, *_ in rows) < _FAULTS.value:
        deck = deck or list(scene.chance.permutation(len(kinds)))
        fault = kinds[deck.pop()]
        began = _settle(job)
        _advance(job, began + int(scene.chance.integers(5, 60)))
        while len(job.checkpoints()) < 2:  # one may be damaged, and another one must be left
            _advance(job, job.step() + 5)
        step, since = job.step(), time.monotonic()
        fault.inject(scene)
        if not fault.ends:
            seconds = _advance(job, job.step() + 10)
            scene.mend()
            rows.append((fault, seconds, 0, ""))
        else:
            seconds, line = _ended(job, fault, since)
            scene.mend()
            job.start()
            lost = max(step - _settle(job), 0)
            warned = [text for text in job.said() if ": warning: " in text]  # of a damaged checkpoint
            line = (line or "".join(warned[:1])).replace(f"{job.workdir}/", "")
            rows.append((fault, seconds, lost, line))
        print(f"{len(rows)}: {fault.title} at step {step}: {rows[-1][1:]}", file=sys.stderr, flush=True)
    _advance(job, _settle(job) + 10)
    job.signal(0, signal.SIGTERM)
    if job.wait(BOUND) or set(job.statuses()) != {errors.EXIT_RETRY}:
        raise Broken(f"SIGTERM at the end: {job.statuses()}, {job.said()}")
    return rows


def _settle(job: Job) -> int:
    """The step from which a started job resumes."""
    deadline = time.monotonic() + 300
    while (began := job.began_at()) is None:
        _require(len(job.alive()) == job.count and time.monotonic() < deadline, job, "did not go on")
        time.sleep(0.1)
    return began


def _advance(job: Job, step: int) -> float:
    """Waits until the job has come to `step`; returns how many seconds that took."""
    since = time.monotonic()
    while job.step() < step:
        _require(len(job.alive()) == job.count, job, "ended")
        _require(time.monotonic() - since < 300, job, "does not advance")
        time.sleep(0.1)
    return time.monotonic() - since


def _ended(job: Job, fault: soak_faults.Fault, since: float) -> tuple[float, str]:
    """Seconds until all processes had ended, stopped ones left out, and what one of them said."""
    left = job.wait(BOUND)
    seconds = time.monotonic() - since
    _require(not left, job, f"had not ended {BOUND:g} s after: {fault.title}")
    job.kill()
    allowed = {errors.EXIT_RETRY, -signal.SIGKILL, -signal.SIGABRT, *fault.spared}
    _require(set(job.statuses()) <= allowed, job, f"ended with {job.statuses()} after: {fault.title}")
    said = [line for line in job.said() if ": warning: " not in line]  # which are about what was before
    _require(not any(line.startswith("Traceback") for line in said), job, f"left a traceback after: {fault.title}")
    return seconds, said[0] if said else ""


def _require(ok: bool, job: Job, what: str) -> None:
    if not ok:
        raise Broken(f"life {job.lives}: the job {what}; {job.statuses()}, {job.said()}")


def compare(one: pathlib.Path, other: pathlib.Path, step: int) -> int:
    """How many arrays two runs' states of a step have, all equal."""
    states = [_state(run / "checkpoints" / str(step) / "state") for run in (one, other)]
    pairs = list(zip(*(jax.tree_util.tree_leaves_with_path(state) for state in states), strict=True))
    differ = [jax.tree_util.keystr(p) for (p, a), (_, b) in pairs if a.tobytes() != b.tobytes()]
    if differ:
        raise Broken(f"{len(differ)} of {len(pairs)} arrays differ, the first of them {differ[0]}")
    return len(pairs)


def _state(path: pathlib.Path) -> Any:
    """As numpy arrays, without the devices that wrote it."""
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(path).item_metadata.tree
        return reader.restore(path, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree))


def table(rows: list[tuple[soak_faults.Fault, float, int, str]], lives: int, last: int) -> str:
    """A line for each kind of fault."""
    kinds = collections.defaultdict(list)
    for fault, seconds, lost, line in rows:
        kinds[fault].append((seconds, lost, line))
    lines = [f"{sum(fault.is_one for fault, *_ in rows)} faults, {lives - 1} restarts, {last:,} steps", ""]
    lines += ["| fault | times | seconds until | steps lost | what was said |", "|---|---|---|---|---|"]
    for fault, found in kinds.items():
        seconds, lost, said = zip(*found, strict=True)
        what = "ended" if fault.ends else "10 steps on"
        shown = max(said, key=len).removeprefix("introvae_jax: ").removeprefix("error: ") or "-"
        lines.append(
            f"| {fault.title} | {len(found)} | {what}: {np.median(seconds):.1f} (at most {max(seconds):.1f}) | "
            f"{np.median(lost):.0f} (at most {max(lost)}) | {shown} |"
        )
    return "\n".join(lines)


def _may_mount() -> bool:
    probe = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _small_disk(place: pathlib.Path, stack: contextlib.ExitStack) -> pathlib.Path:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=True)
    stack.callback(subprocess.run, ["umount", "-l", place], check=False)
    return place


if __name__ == "__main__":
    errors.run(main)
