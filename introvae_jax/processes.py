"""Several processes that train one model: how they find each other, and how each notices that another is gone.

JAX ends a process hard (abort, a page of C++) when another one of the job has been silent for its heartbeat timeout.
The watch here looks more often and ends it first, with one line that names the last good checkpoint.
"""

from collections.abc import Iterator, Mapping
import contextlib
import itertools
import os
import pathlib
import sys
import threading
import time
import traceback
from typing import Any

from absl import logging
import jax
from jax._src import distributed  # the job's key-value store has no public name; Orbax takes it from here too
from jax.experimental import multihost_utils

from introvae_jax import errors, progress
from introvae_jax.errors import EXIT_RETRY, UserError

INIT_TIMEOUT_S = 300  # seconds that processes wait for each other at the start
A_DAY = 86_400_000  # milliseconds
_ALIVE = "introvae_jax/alive/"
_meetings = itertools.count()


def is_several(environment: Mapping[str, str]) -> bool:
    """Whether a cluster's environment says that this process is one of several: what JAX then reads by itself.

    SLURM (of a step; an allocation alone starts no task) and Open MPI tell the number of tasks; GKE and Cloud TPU VMs
    list the workers of a slice; several slices have a coordinator's address.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("OMPI_COMM_WORLD_SIZE", "1")
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return int(tasks) > 1 or "," in workers or "MEGASCALE_COORDINATOR_ADDRESS" in environment


def named(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Address of the coordinator, number of processes and of this one, by the variables of launch/; None without."""
    number = environment.get("JAX_PROCESS_ID") or environment.get("JOB_COMPLETION_INDEX")  # the latter by Kubernetes
    values = environment.get("JAX_COORDINATOR_ADDRESS"), environment.get("JAX_NUM_PROCESSES"), number
    if None in values:
        return None
    try:
        return values[0], int(values[1]), int(values[2])
    except ValueError as error:
        raise UserError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers ({error})") from error


def start(address: str | None, count: int | None, index: int | None, *, peer_timeout: float) -> None:
    """Joins the other processes of the job, if there are any. Before anything else touches JAX.

    address, count, index: HOST:PORT of process 0, how many there are, and which is this one; None for all three where
    the environment says it. peer_timeout: seconds without a sign of life after which a process counts as gone.
    Raises UserError if they contradict each other or the processes do not come together.
    """
    given = address, count, index
    if any(value is not None for value in given) and None in given:
        raise UserError("--coordinator_address, --num_processes and --process_id belong together")
    if address is None and (known := named(os.environ)):
        given = address, count, index = known
    if address is not None and not (0 <= index < count and address.rpartition(":")[2].isdigit()):
        raise UserError(
            f"--coordinator_address={address} --num_processes={count} --process_id={index}: must be HOST:PORT, and "
            "process_id from 0 to num_processes - 1"
        )
    if count == 1 or (address is None and not (is_several(os.environ) or _is_worker_of_tpu_pod())):
        return
    who = f"{address}, process {index} of {count}" if address else "the processes that the environment names"
    late = threading.Timer(INIT_TIMEOUT_S, leave, (f"{who}: not all came together in {INIT_TIMEOUT_S} s", EXIT_RETRY))
    late.daemon = True
    late.start()
    try:
        with progress.phase(f"waiting for the other processes to join ({who})"):
            jax.distributed.initialize(
                *given, cluster_detection_method=None if address is None else "deactivate",
                initialization_timeout=INIT_TIMEOUT_S + 60,  # at which JAX would end the process hard
                heartbeat_timeout_seconds=int(3 * peer_timeout) + 30, shutdown_timeout_seconds=int(peer_timeout),
            )  # fmt: skip
            if jax.default_backend() == "cpu":
                _meet_quietly()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{who}: they cannot be joined ({_first_line(error)})") from error
    finally:
        late.cancel()


def _meet_quietly() -> None:
    """Connects all CPU devices by a first collective, while Gloo's lines on stdout go nowhere.

    They are shown from --verbosity=0 on.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        if logging.get_verbosity() < logging.INFO:
            with pathlib.Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
        multihost_utils.sync_global_devices("introvae_jax: start")
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def _is_worker_of_tpu_pod() -> bool:
    """Whether a Cloud TPU VM's metadata name several workers. Answers at once on any other machine."""
    from jax._src.clusters import cloud_tpu_cluster as cloud

    if not cloud.GceTpuCluster.is_env_present():
        return False
    return cloud.GceTpuCluster.get_process_count() > 1


def several() -> bool:
    """Whether there are other processes in this job."""
    return distributed.global_state.client is not None


def wait_for_all(purpose: str) -> None:
    """Returns once every process has come here; all come to the same ones in the same order. Ends if one is gone."""
    if several():
        name = f"introvae_jax/{next(_meetings)}: {purpose}"
        try:
            with progress.phase(f"waiting for the other processes ({purpose})"):
                distributed.global_state.client.wait_at_barrier(name, A_DAY)
        except jax.errors.JaxRuntimeError as error:
            leave(f"another process of this job is gone ({_first_line(error)}); the same command goes on", EXIT_RETRY)


def from_first(text: str) -> str:
    """The text of process 0, in every process; all call it alike. Ends if one is gone."""
    if not several():
        return text
    key = f"introvae_jax/{next(_meetings)}/text"
    if jax.process_index() == 0:
        distributed.global_state.client.key_value_set(key, text)
    wait_for_all("text of process 0 written")
    text = distributed.global_state.client.blocking_key_value_get(key, INIT_TIMEOUT_S * 1000)
    wait_for_all("text of process 0 read")
    return text


def require_shared(folder: Any) -> None:
    """Ends this process, with one line, where process 0's `folder` is not the one that it sees under that path."""
    if not several():
        return
    mark, text = folder / ".seen_by_all", distributed.global_state.coordinator_address
    if jax.process_index() == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(text)
        except OSError as error:
            leave(f"--workdir={folder}: {error.strerror or error}; choose one that can be written", 1)
    wait_for_all("mark written")
    found = mark.exists() and mark.read_text() == text
    wait_for_all("mark read")
    if jax.process_index() == 0:
        mark.unlink()
    if not found:
        leave(
            f"--workdir={folder}: process {jax.process_index()} does not see what process 0 writes there; give one "
            "that all share, as a network disk or gs://",
            status=1,
        )


class Watch(contextlib.AbstractContextManager):
    """While entered, ends this process with one line when another is gone or a step does not end.

    peer_timeout: seconds without a sign of life of another process. step_timeout: seconds that a step may take, 0 for
    any.
    """

    BEAT = 1.0  # seconds between two signs of life

    def __init__(self, peer_timeout: float, step_timeout: float):
        self._peer_timeout, self._step_timeout = peer_timeout, step_timeout
        self._last_good = "no checkpoint had been written"
        self._since: float | None = None  # when the step that is waited for began
        self._doing, self._done = "", threading.Event()
        self._heard: dict[int, tuple[str, float]] = {}
        self._answered = time.monotonic()

    def __enter__(self) -> "Watch":
        tasks = [self._guard] + ([self._listen] if several() else [])
        self._threads = [threading.Thread(target=task, daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()

    def keep(self, last_good: str) -> None:
        """What to say about the last good checkpoint from now on."""
        self._last_good = last_good

    @contextlib.contextmanager
    def expecting(self, what: str) -> Iterator[None]:
        """While entered, what is done should end within `step_timeout`."""
        self._doing, self._since = what, time.monotonic()
        try:
            yield
        finally:  # a non-finite number may send the run back, and it goes on
            self._since = None

    def leave(self, reason: str) -> None:
        """Ends the process at once, without waiting for others: there is nobody to wait for."""
        leave(f"{reason}: stopped, {self._last_good}; the same command goes on from there", EXIT_RETRY)

    def _guard(self) -> None:
        """Looks at the clocks."""
        while not self._done.wait(self.BEAT):
            now, since = time.monotonic(), self._since
            if self._step_timeout and since is not None and now - since > self._step_timeout:
                self.leave(f"{self._doing} has taken more than {self._step_timeout:g} s (--step_timeout)")
            if not several():
                continue
            if now - self._answered > self._peer_timeout:
                self.leave(
                    f"process 0, the coordinator, has not answered for {self._peer_timeout:g} s (--peer_timeout)"
                )
            for index, (_, heard) in self._heard.copy().items():
                if now - heard > self._peer_timeout:
                    self.leave(
                        f"process {index} has given no sign of life for {self._peer_timeout:g} s (--peer_timeout)"
                    )

    def _listen(self) -> None:
        """Gives and takes signs of life; a call that hangs is noticed by the guard."""
        client, me, beat = distributed.global_state.client, jax.process_index(), 0
        while not self._done.wait(self.BEAT):
            beat += 1
            try:
                client.key_value_set(f"{_ALIVE}{me}", str(beat), allow_overwrite=True)
                signs = client.key_value_dir_get(_ALIVE)
            except jax.errors.JaxRuntimeError as error:
                if not self._done.is_set():
                    self.leave(f"process 0, the coordinator, is gone ({_first_line(error)})")
                return
            now = self._answered = time.monotonic()
            for key, value in signs:
                index = int(key.rpartition("/")[2])
                if index != me and self._heard.get(index, ("", 0.0))[0] != value:
                    self._heard[index] = value, now


def leave_on_error(kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
    """What an ExitStack calls: ends a process in trouble before anything waits for the others of its job."""
    if error is None or not several():
        return
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    leave(str(error) or kind.__name__, getattr(error, "status", 1))


def leave(message: str, status: int) -> None:
    """Ends the process with `message`, running nothing that would wait for other processes."""
    sys.stdout.flush()
    errors.say(message)
    os._exit(status)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
