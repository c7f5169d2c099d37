"""Weights are found, downloaded once and checked; whatever goes wrong is one line, and nothing half stays."""

import functools
import hashlib
import io
import pathlib
import re
import types
import urllib.error

import numpy as np
import pytest
import random_weights

from introvae_jax import disk
from introvae_jax.errors import UserError
from introvae_jax.features import weights

CONTENT = b"what a server would send" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FIRST, SECOND = weights.INCEPTION_NAMES


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of our own, an empty one of PyTorch, and no network."""
    monkeypatch.setenv("INTROVAE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights.urllib.request, "urlopen", functools.partial(fail, urllib.error.URLError("no route")))
    return tmp_path / "cache"


def fail(error, *_, **__):
    raise error


def serve(monkeypatch, content, length=None):
    """A server that promises `length` bytes and sends `content`; returns what is asked of it."""
    asked = []

    def urlopen(url, timeout):
        asked.append(url)
        response = io.BytesIO(content)
        response.headers = {} if length is None else {"Content-Length": str(length)}
        return response

    monkeypatch.setattr(weights.urllib.request, "urlopen", urlopen)
    return asked


def kept(cache):
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of random weights, and the weights."""
    path, state = tmp_path_factory.mktemp("weights") / "random.pth", random_weights.state()
    random_weights.save(path, state)
    return types.SimpleNamespace(path=path, sha256=weights.digest(path), state=state)


def test_a_file_of_weights_gives_the_networks_variables(whole):
    variables, digest = weights.inception(str(whole.path), whole.sha256)
    assert digest == whole.sha256 == hashlib.sha256(whole.path.read_bytes()).hexdigest()
    expected = weights.network.from_torch(whole.state)["params"]
    for name, layer in variables["params"].items():
        np.testing.assert_array_equal(layer["kernel"], expected[name]["kernel"])


def test_another_file_is_refused_with_both_hashes(whole):
    with pytest.raises(UserError, match=rf"random.pth: SHA-256 {whole.sha256} where {weights.INCEPTION_SHA256}"):
        weights.inception(str(whole.path))


def test_a_truncated_file_is_refused_by_its_hash_and_if_that_is_trusted_by_its_content(whole, tmp_path):
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole.path.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match=r"cut\.pth: SHA-256"):
        weights.inception(str(cut), whole.sha256)
    with pytest.raises(UserError, match=r"cut\.pth: damaged or cut short"):
        weights.inception(str(cut), weights.digest(cut))


def test_other_weights_are_refused_by_the_entry_that_they_lack(tmp_path):
    path = tmp_path / "other.pth"
    random_weights.save(path, {"fc.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(UserError, match=r"other\.pth: not the Inception-v3 of FID: Conv2d_1a_3x3.* is missing"):
        weights.inception(str(path), weights.digest(path))


@pytest.mark.parametrize("name", ["missing.pth", "folder", "~nobody_of_this_name/x.pth"])
def test_what_is_no_file_is_named(name, tmp_path):
    (tmp_path / "folder").mkdir()
    path = name if name.startswith("~") else str(tmp_path / name)
    with pytest.raises(UserError, match=re.escape(path)):
        weights.inception_path(path)


def test_without_a_network_the_line_says_where_to_put_the_file(cache):
    with pytest.raises(UserError) as caught:
        weights.inception_path()
    line = str(caught.value)
    assert "\n" not in line
    for part in (weights.INCEPTION_URL, "no route", str(cache / FIRST), "--inception=PATH"):
        assert part in line
    assert kept(cache) == []


def test_it_is_downloaded_once(cache, monkeypatch):
    asked = serve(monkeypatch, CONTENT, len(CONTENT))
    for _ in range(2):
        path = weights.inception_path(sha256=SHA256)
        assert (path, path.read_bytes()) == (cache / FIRST, CONTENT)
    assert asked == [weights.INCEPTION_URL]
    assert kept(cache) == [FIRST]


def test_a_server_that_does_not_say_how_much_it_sends(cache, monkeypatch):
    serve(monkeypatch, CONTENT)
    assert weights.inception_path(sha256=SHA256.upper()).read_bytes() == CONTENT


def test_half_a_download_leaves_nothing(cache, monkeypatch):
    serve(monkeypatch, CONTENT[:5000], len(CONTENT))
    with pytest.raises(UserError, match="the connection ended after 5000 of 24000 bytes; get the file elsewhere"):
        weights.inception_path(sha256=SHA256)
    assert kept(cache) == []


def test_a_download_of_something_else_leaves_nothing(cache, monkeypatch):
    serve(monkeypatch, b"<html>log in first</html>")
    with pytest.raises(UserError, match=rf"SHA-256 [0-9a-f]{{64}} where {SHA256} is needed, nothing was kept"):
        weights.inception_path(sha256=SHA256)
    assert kept(cache) == []


@pytest.mark.parametrize("error", [TimeoutError("timed out"), weights.http.client.BadStatusLine("?")])
def test_a_server_that_fails_otherwise(error, cache, monkeypatch):
    monkeypatch.setattr(weights.urllib.request, "urlopen", functools.partial(fail, error))
    with pytest.raises(UserError, match="not downloaded to"):
        weights.inception_path()


def test_a_cache_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("INTROVAE_JAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file"))):
        weights.inception_path()


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_what_the_reference_tools_downloaded_is_found(name, tmp_path):
    path = tmp_path / "torch/hub/checkpoints" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert weights.inception_path(sha256=SHA256) == path


def test_a_file_of_the_cache_is_checked_too(cache):
    cache.mkdir()
    (cache / FIRST).write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match=rf"{re.escape(FIRST)}: SHA-256 .* get it again"):
        weights.inception_path(sha256=SHA256)


def test_the_cache_is_in_the_home_unless_told(monkeypatch):
    monkeypatch.delenv("INTROVAE_JAX_CACHE")
    assert disk.cache_dir() == pathlib.Path.home() / ".cache/introvae_jax"
