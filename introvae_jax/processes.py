"""Several processes that train one model: initialization, barriers and shutdown.

JAX aborts a process, with a page of C++ output, if another process of the job misses JAX's heartbeat timeout.
training/watch.py checks more often and ends the process first, with one line that names the last good checkpoint.
"""

from collections.abc import Mapping
import itertools
import os
import pathlib
import sys
import threading
import traceback
from typing import Any, NoReturn

from absl import logging
from etils import epath
import jax
from jax._src import distributed  # the job's key-value store has no public name; Orbax takes it from here too
from jax.experimental import multihost_utils

from introvae_jax import errors, progress
from introvae_jax.errors import EXIT_RETRY, UserError

INIT_TIMEOUT_S = 300  # seconds that processes wait for each other at startup
A_DAY = 86_400_000  # milliseconds
_meetings = itertools.count()


def is_several(environment: Mapping[str, str]) -> bool:
    """True if the environment variables of a cluster, which JAX reads, describe several processes.

    Slurm (in a step; an allocation alone starts no task) and Open MPI set the number of tasks. GKE and Cloud TPU VMs
    list the workers of a slice. Jobs of several slices have the address of a coordinator.
    """
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or environment.get("OMPI_COMM_WORLD_SIZE", "1")
    workers = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES", "")
    return int(tasks) > 1 or "," in workers or "MEGASCALE_COORDINATOR_ADDRESS" in environment


def named(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """Coordinator address, number of processes and index of this one from the variables of launch/; None if unset."""
    number = environment.get("JAX_PROCESS_ID") or environment.get("JOB_COMPLETION_INDEX")  # Kubernetes sets the latter
    address, count = environment.get("JAX_COORDINATOR_ADDRESS"), environment.get("JAX_NUM_PROCESSES")
    if address is None or count is None or number is None:
        return None
    try:
        return address, int(count), int(number)
    except ValueError as error:
        raise UserError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID must be whole numbers ({error})") from error


def start(address: str | None, count: int | None, index: int | None, *, peer_timeout: float) -> None:
    """Joins the other processes of the job, if there are any. Call it before anything else uses JAX.

    address, count, index: HOST:PORT of process 0, number of processes and index of this process; None for all three to
    read them from the environment. peer_timeout: seconds without a heartbeat after which a process counts as ended.
    Raises UserError if the values contradict each other or the processes cannot connect.
    """
    given = address, count, index
    if any(value is not None for value in given) and None in given:
        raise UserError("--coordinator_address, --num_processes and --process_id must be given together")
    if address is None and (known := named(os.environ)):
        given = address, count, index = known
    if (
        address is not None
        and count is not None
        and index is not None
        and not (0 <= index < count and address.rpartition(":")[2].isdigit())
    ):
        raise UserError(
            f"--coordinator_address={address} --num_processes={count} --process_id={index}: must be HOST:PORT, and "
            "process_id from 0 to num_processes - 1"
        )
    if count == 1 or (address is None and not (is_several(os.environ) or _is_worker_of_tpu_pod())):
        return
    who = f"{address}, process {index} of {count}" if address else "the processes listed in the environment"
    late = threading.Timer(INIT_TIMEOUT_S, leave, (f"{who}: not all joined within {INIT_TIMEOUT_S} s", EXIT_RETRY))
    late.daemon = True
    late.start()
    try:
        with progress.phase(f"waiting for the other processes to join ({who})"):
            jax.distributed.initialize(
                *given, cluster_detection_method=None if address is None else "deactivate",
                initialization_timeout=INIT_TIMEOUT_S + 60,  # after which JAX would abort the process
                heartbeat_timeout_seconds=int(3 * peer_timeout) + 30, shutdown_timeout_seconds=int(peer_timeout),
            )  # fmt: skip
            if jax.default_backend() == "cpu":
                _meet_quietly()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{who}: cannot connect ({first_line(error)})") from error
    finally:
        late.cancel()


def _meet_quietly() -> None:
    """Connects all CPU devices by a first collective. Hides Gloo's lines on stdout, unless --verbosity is 0 or more."""
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
    """True if the metadata of a Cloud TPU VM list several workers. Returns immediately on any other machine."""
    from jax._src.clusters import cloud_tpu_cluster as cloud

    if not cloud.GceTpuCluster.is_env_present():
        return False
    return cloud.GceTpuCluster.get_process_count() > 1


def several() -> bool:
    """True if this job has several processes."""
    return distributed.global_state.client is not None


def key_value_store() -> Any:
    """The key-value store of the job, a class of JAX without type information. Only where there are other processes."""
    client = distributed.global_state.client
    assert client is not None
    return client


def wait_for_all(purpose: str) -> None:
    """A barrier: blocks until every process has called it. All processes call the same barriers in the same order.

    Ends this process if another one has ended. purpose: for the progress line.
    """
    if several():
        name = f"introvae_jax/{next(_meetings)}: {purpose}"
        try:
            with progress.phase(f"waiting for the other processes ({purpose})"):
                key_value_store().wait_at_barrier(name, A_DAY)
        except jax.errors.JaxRuntimeError as error:
            reason = f"another process of this job has ended ({first_line(error)})"
            leave(f"{reason}; rerun the same command to resume", EXIT_RETRY)


def from_first(text: str) -> str:
    """Broadcasts the text of process 0. Every process must call it. Ends this process if another one has ended."""
    if not several():
        return text
    key = f"introvae_jax/{next(_meetings)}/text"
    if jax.process_index() == 0:
        key_value_store().key_value_set(key, text)
    wait_for_all("text of process 0 written")
    text = key_value_store().blocking_key_value_get(key, INIT_TIMEOUT_S * 1000)
    wait_for_all("text of process 0 read")
    return text


def require_shared(folder: pathlib.Path | epath.Path) -> None:
    """Ends this process with one line if `folder` is not the same folder here as in process 0."""
    if not several():
        return
    mark, text = folder / ".seen_by_all", distributed.global_state.coordinator_address or ""
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
            f"--workdir={folder}: process {jax.process_index()} does not see what process 0 writes there; choose one "
            "that all processes share, on a network disk or in gs://",
            status=1,
        )


def leave_on_error(_kind: object, error: BaseException | None, _traceback: object) -> None:
    """Exit callback of an ExitStack: after an error, ends the process before anything waits for other processes."""
    if error is None or not several():
        return
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    leave(str(error) or type(error).__name__, getattr(error, "status", 1))


def leave(message: str, status: int) -> NoReturn:
    """Prints `message` as an error and ends the process, without any cleanup that waits for other processes."""
    sys.stdout.flush()
    errors.say(message)
    os._exit(status)


def first_line(error: Exception) -> str:
    """The first line of an error's message, 200 characters at most."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
