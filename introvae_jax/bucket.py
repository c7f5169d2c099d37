"""Work directories in Google Cloud Storage, gs://BUCKET/RUN: what a folder can do and a bucket cannot.

A bucket has no append, no rename and no free space to ask for; an object is there whole or not at all. Three libraries
speak to it: gcsfs (pictures, logs, Orbax's small files), google-cloud-storage (Orbax asks for the bucket's kind) and
TensorStore (Orbax's arrays). All take Google's application default credentials.
"""

import concurrent.futures
import errno
import os
import pathlib
import tempfile
import uuid

from etils import epath
import tensorstore

from introvae_jax.errors import UserError, install, one_line

SCHEME = "gs://"
os.environ.setdefault("EPATH_USE_TF", "false")  # where TensorFlow is installed too, epath would start it for a bucket
TIMEOUT = 30  # seconds for each of the two questions before a run, which the libraries would repeat for minutes


def is_bucket(path: str | os.PathLike) -> bool:
    """Whether the path is one of Google Cloud Storage."""
    return os.fspath(path).startswith(SCHEME)


def at(path: str | os.PathLike) -> epath.Path:
    """The path gs://BUCKET/... Raises UserError if it is none or the libraries for it are missing."""
    text = os.fspath(path)
    if not is_bucket(text) or not text.removeprefix(SCHEME).split("/")[0]:
        raise UserError(f"{text}: must be a folder, or gs://BUCKET/RUN; other stores cannot hold checkpoints")
    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(f"{text}: a bucket needs gcsfs ({error}): {install('gcs')}") from error
    defaults = fsspec.config.conf.setdefault("gcs", {})
    defaults.setdefault("use_listings_cache", False)  # TensorStore and other processes write there as well
    return epath.Path(text)


def require(path: epath.Path, *, writes: bool) -> None:
    """Asks the bucket, within TIMEOUT seconds each, what every run needs of it. Raises UserError if it says no."""
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY

    name, _, place = str(path).removeprefix(SCHEME).partition("/")
    try:
        storage.Client().get_bucket(name, timeout=TIMEOUT / 2, retry=DEFAULT_RETRY.with_timeout(TIMEOUT))
        few = {"max_retries": 4}
        spec = {"driver": "gcs", "bucket": name, "path": f"{place}/", "context": {"gcs_request_retries": few}}
        store = tensorstore.KvStore.open(spec).result(timeout=TIMEOUT)
        probe = f".probe_{uuid.uuid4().hex}"  # many hosts start at once, and an object takes one write a second
        if writes:
            store.write(probe, b"may be removed").result(timeout=TIMEOUT)
            store.write(probe, None).result(timeout=TIMEOUT)
        else:
            store.read(probe).result(timeout=TIMEOUT)
    except Exception as error:  # each library has exceptions of its own, and so has each transport below them
        use = "written" if writes else "read"
        raise UserError(
            f"{path}: the bucket {name} cannot be {use} ({one_line(error)[:300]}). It must exist (gcloud storage "
            f"buckets create {SCHEME}{name}) and the account have the roles Storage Object User and Storage Legacy "
            "Bucket Reader there; gcloud auth application-default login signs in, GOOGLE_CLOUD_PROJECT names a project"
        ) from error


def upload(path: epath.Path, content: bytes) -> None:
    """Puts an object into a bucket, whole or not at all. Raises OSError, whatever the libraries raise."""
    try:
        path.write_bytes(content)
    except Exception as error:  # as in `require`
        raise OSError(errno.EIO, f"could not be written ({one_line(error)[:300]})", str(path)) from error


class Spool:
    """Where the files of `folder` grow: in it, or for a bucket in a temporary folder, uploaded by `publish`.

    local: that folder. Uploads are whole files and run beside training, one `publish` at a time.
    """

    def __init__(self, folder: pathlib.Path | epath.Path):
        self.remote, self.local = is_bucket(folder), folder
        if self.remote:
            self._folder, self._sizes = folder, {}
            self._temporary = tempfile.TemporaryDirectory(prefix="introvae_jax_")
            self.local = pathlib.Path(self._temporary.name)
            self._thread = concurrent.futures.ThreadPoolExecutor(1)
            self._uploads: list[concurrent.futures.Future] = []

    def fetch(self, name: str) -> None:
        """Copies a file that is in the bucket already, so that it can grow on."""
        if self.remote and (self._folder / name).exists():
            self._sizes[name] = (self.local / name).write_bytes((self._folder / name).read_bytes())

    def publish(self) -> None:
        """Starts to upload the files that have grown. Raises OSError if the uploads before failed."""
        if not self.remote:
            return
        self.wait()
        for file in sorted(self.local.rglob("*")):
            name = str(file.relative_to(self.local))
            if file.is_file() and file.stat().st_size != self._sizes.get(name):
                content = file.read_bytes()
                self._sizes[name] = len(content)
                self._uploads.append(self._thread.submit(upload, self._folder / name, content))

    def wait(self) -> None:
        """Returns once everything published is in the bucket. Raises OSError if it could not be written."""
        if self.remote:
            uploads, self._uploads = self._uploads, []
            for each in uploads:
                each.result()

    def close(self) -> None:
        """Publishes what is left. Raises OSError if it could not be written."""
        if self.remote:
            try:
                self.publish()
                self.wait()
            finally:
                self._thread.shutdown()
                self._temporary.cleanup()
