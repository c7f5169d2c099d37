"""The lower bound on a step's memory; tests/planning/test_plan.py holds it against compiled programs."""

import re

import jax
import pytest

from configs import digits, toy2d
from introvae_jax import parallel
from introvae_jax.errors import UserError
from introvae_jax.training import memory, train_loop

GIB = 2**30


def test_of_dense_layers_it_is_what_can_be_counted_by_hand():
    config = toy2d.get_config()
    config.model.width, config.model.depth = 16, 3
    state, point = memory.least(config)
    layer = 16 * 16 + 16
    encoder, decoder = (2 * 16 + 16) + 2 * layer + (16 * 4 + 4), (2 * 16 + 16) + 2 * layer + (16 * 2 + 2)
    assert state == 4 * 4 * (encoder + decoder)
    assert point == 4 * (2 * (2 + 3 * 16)) + 2  # the inputs of four layers in each network, and the point


def test_of_convolutions_it_follows_type_and_recomputation():
    config = digits.get_config()
    _, plain = memory.least(config)
    config.model.dtype = "bfloat16"
    _, half = memory.least(config)
    assert half < 0.55 * plain
    config.model.dtype, config.model.remat = "float32", True
    _, recomputed = memory.least(config)
    assert 0.2 * plain < recomputed < 0.7 * plain


@pytest.fixture
def room(monkeypatch):
    """Sets what a device has."""
    return lambda size: monkeypatch.setattr(memory, "available", lambda device: size)


def check(config, batch_size):
    config.batch_size = batch_size
    memory.require_fit(config, parallel.replicas(tuple(jax.devices()[:1])))


def test_a_batch_that_cannot_fit_is_refused_with_one_that_may(room):
    room(8 * GIB)
    config = digits.get_config()
    for fits in (1, 16, 1_000):
        check(config, fits)
    with pytest.raises(UserError) as error:
        check(config, 100_000)
    told = str(error.value)
    assert "config.batch_size = 100000" in told and "8.0 GiB" in told and "--config.model.remat=True" in told
    largest = int(re.search(r"at most ([\d,]+)", told)[1].replace(",", ""))
    check(config, largest)
    with pytest.raises(UserError):
        check(config, largest + 1)


def test_training_refuses_it_before_it_reads_an_image_or_compiles(room, monkeypatch, tmp_path):
    room(GIB)
    monkeypatch.setattr(jax, "jit", lambda *_, **__: pytest.fail("compiles"))
    monkeypatch.setattr(train_loop.source, "open_splits", lambda _: pytest.fail("reads images"))
    config = digits.get_config()
    config.batch_size = 100_000
    with pytest.raises(UserError, match=r"config\.batch_size = 100000"):
        train_loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_where_nobody_tells_a_limit_nothing_is_refused(room):
    room(None)
    check(digits.get_config(), 10**9)


@pytest.mark.parametrize(
    ("group", "limit", "size"),
    [("0::/", None, 600), ("0::/job", "409600", 400), ("0::/job", "max", 600), ("5:memory:/", None, 600)],
)
def test_a_machine_s_memory_is_what_is_free_or_what_its_group_may_take(tmp_path, group, limit, size):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal:  9999 kB\nMemAvailable:  500 kB\nSwapTotal:  200 kB\nSwapFree:  100 kB\n"
    )
    (tmp_path / "proc/self/cgroup").write_text(group + "\n")
    if limit:
        (tmp_path / "sys/fs/cgroup/job").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/job/memory.max").write_text(limit + "\n")
    assert memory._machine(tmp_path) == size * 1024
    assert memory._machine(tmp_path / "elsewhere") is None
