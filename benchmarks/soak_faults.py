"""The faults of benchmarks/soak.py. A fault is a function of the job, its resources and a random generator."""

from collections.abc import Callable
import dataclasses
import pathlib
import shutil
import signal
import time

import numpy as np

from benchmarks.soak_job import Hosts, Job

BRIEFLY = 2.0  # seconds


@dataclasses.dataclass(frozen=True)
class Fault:
    """ends: True if the job must end by itself. spared: allowed exit statuses besides 75 and that of a signal."""

    title: str
    inject: Callable[["Scene"], None]
    ends: bool = True
    spared: tuple[int, ...] = ()
    is_one: bool = True  # or what faults are compared with


@dataclasses.dataclass
class Scene:
    """Where faults happen. disk: a small file system that can be filled, or None."""

    job: Job
    chance: np.random.Generator
    disk: pathlib.Path | None = None
    hosts: Hosts | None = None

    def somebody(self) -> int:
        return int(self.chance.integers(self.job.count))

    def mend(self) -> None:
        """Takes back what outlives the job."""
        if self.disk is not None:
            (self.disk / "ballast").unlink(missing_ok=True)
        if self.hosts is not None:
            self.hosts.mend()


def _signal_one(number: signal.Signals) -> Callable[[Scene], None]:
    return lambda scene: scene.job.signal(scene.somebody(), number)


def _kill_all(scene: Scene) -> None:
    scene.job.kill()


def _kill_while_saving(scene: Scene) -> None:
    folder, deadline = scene.job.workdir / "checkpoints", time.monotonic() + 120
    while not any("tmp" in p.name for p in folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.001)
    scene.job.kill()


def _stop_briefly(scene: Scene) -> None:
    i = scene.somebody()
    scene.job.signal(i, signal.SIGSTOP)
    time.sleep(BRIEFLY)
    scene.job.signal(i, signal.SIGCONT)


def _fill_disk(scene: Scene) -> None:
    with (scene.disk / "ballast").open("wb") as file:
        free = shutil.disk_usage(scene.disk).free
        file.write(bytes(max(free - 2**19, 0)))


def _damage(how: Callable[[pathlib.Path, np.random.Generator], None]) -> Callable[[Scene], None]:
    """The job is killed, and a file of its latest checkpoint is damaged before it starts again."""

    def inject(scene: Scene) -> None:
        scene.job.kill()
        latest = scene.job.workdir / "checkpoints" / str(scene.job.checkpoints()[-1])
        files = sorted(p for p in latest.rglob("*") if p.is_file() and p.stat().st_size)
        how(files[scene.chance.integers(len(files))], scene.chance)

    return inject


def _flip(path: pathlib.Path, chance: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[chance.integers(len(content))] ^= 1 << int(chance.integers(8))
    path.write_bytes(content)


def _halve(path: pathlib.Path, chance: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _remove(path: pathlib.Path, chance: np.random.Generator) -> None:
    path.unlink()


def _cut(scene: Scene) -> None:
    scene.hosts.cut(scene.somebody())


def _cut_briefly(scene: Scene) -> None:
    scene.hosts.cut(scene.somebody())
    time.sleep(BRIEFLY)
    scene.hosts.mend()


def _slow(scene: Scene) -> None:
    scene.hosts.slow(scene.somebody(), "1mbit")


def _nothing(scene: Scene) -> None:
    """No fault, as a reference."""


PROCESSES = (
    Fault("SIGKILL, one process", _signal_one(signal.SIGKILL)),
    Fault("SIGKILL, all processes", _kill_all),
    Fault("SIGKILL, all, amid a save", _kill_while_saving),
    Fault("SIGTERM, one process", _signal_one(signal.SIGTERM)),
    Fault("SIGINT, one process", _signal_one(signal.SIGINT)),
    Fault("SIGSTOP, one process", _signal_one(signal.SIGSTOP)),
    Fault(f"SIGSTOP for {BRIEFLY:g} s", _stop_briefly, ends=False),
)
FILES = (
    Fault("a bit of the latest checkpoint flipped", _damage(_flip)),
    Fault("a file of it cut in half", _damage(_halve)),
    Fault("a file of it removed", _damage(_remove)),
)
DISK = (Fault("full disk", _fill_disk, spared=(1,)),)
NETWORK = (
    Fault("link of one host cut", _cut),
    Fault(f"link cut for {BRIEFLY:g} s", _cut_briefly, ends=False),
    Fault("link at 1 Mbit/s", _slow, ends=False),
    Fault("none", _nothing, ends=False, is_one=False),
)
