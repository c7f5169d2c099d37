"""The job that benchmarks/soak.py breaks: real processes of the training command, on hosts of their own if asked."""

from collections.abc import Sequence
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import portpicker

ROOT = pathlib.Path(__file__).parent.parent


class Hosts:
    """Network namespaces on a bridge: each a host with a link that can be cut or slowed. Needs root and iproute2.

    `run(i)` is what goes before a command to have it run on host i, and `address(i)` is where that host answers.
    """

    def __init__(self, count: int):
        self._names = [f"soak{i}" for i in range(count)]
        self.close()
        _ip("link", "add", "soakbridge", "type", "bridge")
        _ip("link", "set", "soakbridge", "up")
        for i, name in enumerate(self._names):
            _ip("netns", "add", name)
            _ip("link", "add", f"{name}-out", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", f"{name}-out", "master", "soakbridge", "up")
            _ip("-n", name, "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            names = pathlib.Path("/etc/netns") / name / "hosts"  # mounted over /etc/hosts: Gloo looks up its own name
            names.parent.mkdir(parents=True, exist_ok=True)
            names.write_text(f"127.0.0.1 localhost\n{self.address(i)} {name}\n")

    def address(self, i: int) -> str:
        return f"10.77.0.{i + 1}"

    def run(self, i: int) -> list[str]:
        name = self._names[i]
        return ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec ip netns exec {name} "$@"', "sh"]

    def cut(self, i: int) -> None:
        _ip("link", "set", f"{self._names[i]}-out", "down")

    def slow(self, i: int, rate: str) -> None:
        """Packets for host i come at no more than `rate`, as tc writes it."""
        limit = ["tbf", "rate", rate, "burst", "16kbit", "latency", "200ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", f"{self._names[i]}-out", "root", *limit], check=True)

    def mend(self) -> None:
        for name in self._names:
            _ip("link", "set", f"{name}-out", "up")
            subprocess.run(["tc", "qdisc", "del", "dev", f"{name}-out", "root"], capture_output=True, check=False)

    def close(self) -> None:
        """Takes them down, also those that an earlier run left."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            subprocess.run(["ip", "link", "del", f"{name}-out"], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", "soakbridge"], capture_output=True, check=False)


class Job:
    """`count` processes that train one model; started again and again, each time a new life with logs of its own."""

    def __init__(
        self, arguments: Sequence[str], workdir: pathlib.Path, logs: pathlib.Path, count: int, hosts: Hosts | None
    ):
        self._arguments, self._logs, self._hosts = [*arguments, f"--workdir={workdir}"], logs, hosts
        self.workdir, self.count, self.lives = workdir, count, 0
        self.processes: list[subprocess.Popen] = []

    def start(self) -> None:
        self.lives += 1
        self._logs.mkdir(parents=True, exist_ok=True)
        address = f"{self._hosts.address(0) if self._hosts else 'localhost'}:{portpicker.pick_unused_port()}"
        self.processes = []
        for i in range(self.count):
            command = [
                *(self._hosts.run(i) if self._hosts else []), sys.executable, "-m", "introvae_jax.main",
                *self._arguments, f"--coordinator_address={address}", f"--num_processes={self.count}",
                f"--process_id={i}",
            ]  # fmt: skip
            with self._log(i).open("w") as log:
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
                )

    def signal(self, i: int, number: signal.Signals) -> None:
        """To process i itself; a host's wrapper hands over to it by exec."""
        if self.processes[i].poll() is None:
            os.kill(self.processes[i].pid, number)

    def alive(self) -> list[int]:
        return [i for i, process in enumerate(self.processes) if process.poll() is None]

    def statuses(self) -> list[int | None]:
        return [process.poll() for process in self.processes]

    def wait(self, seconds: float) -> list[int]:
        """Waits for all processes but those that a SIGSTOP holds; returns which are alive then."""
        deadline = time.monotonic() + seconds
        while (left := [i for i in self.alive() if not self._is_held(i)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _is_held(self, i: int) -> bool:
        stat = pathlib.Path(f"/proc/{self.processes[i].pid}/stat")
        return stat.exists() and stat.read_text().rpartition(") ")[2].startswith("T")

    def kill(self) -> None:
        for i in range(self.count):
            self.signal(i, signal.SIGKILL)
        self.wait(60)

    def step(self) -> int:
        """That of the last record."""
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [line for line in lines[-2:] if line.endswith("}")]
        return json.loads(whole[-1])["step"] if whole else 0

    def checkpoints(self) -> list[int]:
        folder = self.workdir / "checkpoints"
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []

    def began_at(self) -> int | None:
        """The step from which this life resumed, once it has printed it."""
        found = re.search(r"from step (\d+) to ", self._log(0).read_text())
        return int(found.group(1)) if found else None

    def said(self) -> list[str]:
        """The lines with which the processes of this life ended, and its warnings."""
        texts = [self._log(i).read_text() for i in range(self.count)]
        return [
            line for text in texts for line in text.splitlines()
            if line.startswith(("introvae_jax: ", "Traceback")) or ": saved step " in line
        ]  # fmt: skip

    def _log(self, i: int) -> pathlib.Path:
        return self._logs / f"{self.lives:03d}_{i}.log"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
