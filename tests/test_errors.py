"""What reaches the terminal of what goes wrong aside."""

import contextlib
import sys
import types

import pytest

from introvae_jax import errors


def unraisable(error, thing=None):
    return types.SimpleNamespace(
        object=thing, exc_type=type(error), exc_value=error, exc_traceback=error.__traceback__, err_msg=None
    )


@pytest.fixture
def told(monkeypatch):
    """What Python's own hook would have shown."""
    calls = []
    monkeypatch.setattr(sys, "__unraisablehook__", calls.append)
    return calls


LATE, OTHER = RuntimeError("Event loop is closed"), RuntimeError("something broke")


@pytest.mark.parametrize(("error", "shown"), [(LATE, False), (OTHER, True)])
def test_news_for_an_event_loop_that_is_no_more_is_no_news(error, shown, capfd, told):
    """TensorStore's threads bring them when a read of a damaged checkpoint was given up; all else is shown."""
    errors._tell(RuntimeError, error, None)
    assert ("something broke" in capfd.readouterr().err) == shown
    errors._tell_unraisable(unraisable(error))
    assert len(told) == shown


def test_of_the_reads_that_orbax_leaves_behind_nothing_is_said(told):
    code = types.SimpleNamespace(co_filename="site-packages/orbax/checkpoint/reader.py")
    errors._tell_unraisable(unraisable(OTHER, types.SimpleNamespace(cr_code=code)))
    assert not told


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202egnp.\x9b1m caf\udce9 \nintrovae_jax: all is well"


@pytest.mark.parametrize("tell", [errors.warn, errors.fail])
def test_what_files_are_called_does_not_reach_the_terminal_raw(tell, capsys):
    with contextlib.suppress(SystemExit):
        tell(f"{HOSTILE}: not an image, größe 図")
    line = capsys.readouterr().err
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert r"\x1b]0;owned\x07" in line
    assert r"caf\xe9 \n" in line
    assert "größe 図" in line


def test_a_package_that_is_missing_is_named_with_its_installation(capsys):
    with pytest.raises(SystemExit) as ended:
        errors.fail_without(ModuleNotFoundError("No module named 'skimage'", name="skimage.data"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "introvae_jax: error: the package scikit-image is not installed: pip install scikit-image\n"
    )
    with pytest.raises(ModuleNotFoundError):
        errors.fail_without(ModuleNotFoundError("ours", name="introvae_jax.nothing"))


def test_a_benchmark_beside_pytorch_says_that_it_is_not_installed(run_command, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    done = run_command("benchmarks.train_step", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "introvae_jax: error: the package torch is not installed: pip install torch\n"
