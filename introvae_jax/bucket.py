"""Work directories in Google Cloud Storage, gs://BUCKET/RUN.

A bucket has no append, no rename and no free-space query; writing an object is atomic. Three libraries access it: gcsfs
(pictures, logs, Orbax's small files), google-cloud-storage (Orbax queries the type of the bucket) and TensorStore
(Orbax's arrays). All use Google's application default credentials.
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
os.environ.setdefault("EPATH_USE_TF", "false")  # epath would import TensorFlow for a bucket where it is installed
TIMEOUT = 30  # seconds for each of the two checks before a run; the libraries would retry for minutes


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """True if the path starts with gs://."""
    return os.fspath(path).startswith(SCHEME)


def at(path: str | os.PathLike[str]) -> epath.Path:
    """The path gs://BUCKET/... Raises UserError if it is not one, or if the libraries for it are missing."""
    text = os.fspath(path)
    if not is_bucket(text) or not text.removeprefix(SCHEME).split("/")[0]:
        raise UserError(f"{text}: must be a folder, or gs://BUCKET/RUN; other storage is not supported")
    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(f"{text}: a bucket needs gcsfs ({error}): {install('gcs')}") from error
    defaults = fsspec.config.conf.setdefault("gcs", {})
    defaults.setdefault("use_listings_cache", False)  # TensorStore and other processes write there too
    return epath.Path(text)


def require(path: epath.Path, *, writes: bool) -> None:
    """Checks the permissions that a run needs, so that missing ones are reported before training.

    writes: True also creates and deletes an object. Each check takes at most TIMEOUT seconds. Raises UserError if the
    bucket does not exist, is not accessible or does not answer.
    """
    from google.cloud import storage
    from google.cloud.storage.retry import DEFAULT_RETRY

    name, _, place = str(path).removeprefix(SCHEME).partition("/")
    try:
        storage.Client().get_bucket(name, timeout=TIMEOUT / 2, retry=DEFAULT_RETRY.with_timeout(TIMEOUT))
        few = {"max_retries": 4}
        spec = {"driver": "gcs", "bucket": name, "path": f"{place}/", "context": {"gcs_request_retries": few}}
        store = tensorstore.KvStore.open(spec).result(timeout=TIMEOUT)
        probe = f".probe_{uuid.uuid4().hex}"  # many hosts start at once, and an object allows one write per second
        if writes:
            store.write(probe, b"may be removed").result(timeout=TIMEOUT)
            store.write(probe, None).result(timeout=TIMEOUT)
        else:
            store.read(probe).result(timeout=TIMEOUT)
    except Exception as error:  # each library and each transport raises its own types
        use = "written" if writes else "read"
        raise UserError(
            f"{path}: the bucket {name} cannot be {use} ({one_line(error)[:300]}). The bucket must exist (gcloud "
            f"storage buckets create {SCHEME}{name}), and the account needs the roles Storage Object User and Storage "
            "Legacy Bucket Reader. gcloud auth application-default login signs in, GOOGLE_CLOUD_PROJECT sets a project"
        ) from error


def upload(path: epath.Path, content: bytes) -> None:
    """Writes an object atomically. Converts every error of the libraries to OSError."""
    try:
        path.write_bytes(content)
    except Exception as error:  # as in `require`
        raise OSError(errno.EIO, f"could not be written ({one_line(error)[:300]})", str(path)) from error


class Spool:
    """A local folder for files that grow, such as logs; for a bucket a temporary one, which `publish` uploads.

    local: that folder. Whole files are uploaded in the background, one `publish` at a time.
    """

    def __init__(self, folder: pathlib.Path | epath.Path):
        self.remote, self.local = is_bucket(folder), folder
        if self.remote:
            self._folder = folder
            self._sizes: dict[str, int] = {}
            self._temporary = tempfile.TemporaryDirectory(prefix="introvae_jax_")
            self.local = pathlib.Path(self._temporary.name)
            self._thread = concurrent.futures.ThreadPoolExecutor(1)
            self._uploads: list[concurrent.futures.Future[None]] = []

    def fetch(self, name: str) -> None:
        """Downloads a file that exists in the bucket, so that it can be appended to."""
        if self.remote and (self._folder / name).exists():
            self._sizes[name] = (self.local / name).write_bytes((self._folder / name).read_bytes())

    def publish(self) -> None:
        """Starts to upload the files that have grown. Raises OSError if an earlier upload failed."""
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
        """Blocks until everything published is in the bucket. Raises OSError if it could not be written."""
        if self.remote:
            uploads, self._uploads = self._uploads, []
            for each in uploads:
                each.result()

    def close(self) -> None:
        """Publishes the rest, and waits. Raises OSError if it could not be written."""
        if self.remote:
            try:
                self.publish()
                self.wait()
            finally:
                self._thread.shutdown()
                self._temporary.cleanup()
