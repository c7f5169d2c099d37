"""Collectives: counted in text of known content, and in the real step."""

import jax
import pytest

from configs import digits
from introvae_jax.planning import collectives, compiled_step

TEXT = """
ENTRY %main {
  %all-reduce.1 = (f32[4]{0}, f32[2,3]{1,0}) all-reduce(%a, %b), channel_id=1, replica_groups={{0,1}}
  %all-reduce-start.2 = bf16[8]{0:T(256)} all-reduce-start(%c), channel_id=2
  %all-reduce-done.2 = bf16[8]{0:T(256)} all-reduce-done(%all-reduce-start.2)
  %all-gather-start = (f32[2]{0}, f32[4]{0}) all-gather-start(%d), channel_id=3
  %all-gather-done = f32[4]{0} all-gather-done(%all-gather-start)
  ROOT %fusion = f32[] fusion(%all-reduce.1), calls=%all-reduce-like
}
"""


def test_tuples_and_started_ones_are_counted_once():
    found = list(collectives.find(TEXT))
    assert [(one.kind, one.arrays, one.bytes) for one in found] == [
        ("all-reduce", 2, 4 * 10), ("all-reduce", 1, 2 * 8), ("all-gather", 1, 4 * 4)
    ]  # fmt: skip
    assert collectives.by_kind(TEXT) == {"all-reduce": (2, 56), "all-gather": (1, 16)}


def compiled(norm, count):
    config = digits.get_config()
    config.model.channels, config.model.z_dim, config.model.norm = (8, 8, 8), 4, norm
    config.batch_size = 2 * count
    return compiled_step.compile_step(config, jax.devices()[:count]).as_text(), 4 * sum(
        compiled_step.parameters(config)
    )


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_what_a_step_exchanges_does_not_grow_with_the_devices(norm):
    (two, _), (four, _) = compiled(norm, 2), compiled(norm, 4)
    assert collectives.by_kind(two) == collectives.by_kind(four)
    assert set(collectives.by_kind(two)) == {"all-reduce"}


def test_without_batchnorm_gradients_and_scalars_are_all():
    text, gradients = compiled("none", 2)
    found = list(collectives.find(text))
    beside = sum(one.bytes for one in found) - gradients
    assert 0 < beside <= 4 * 12  # losses and terms, one number each


def test_the_plan_s_estimate_of_exchanges_is_near_the_compiled_number():
    """A compiler may merge a few, or leave them."""
    config = digits.get_config()
    config.model.channels, config.model.z_dim, config.batch_size = (8, 8, 8), 4, 4
    counted = collectives.by_kind(compiled("batch", 2)[0])["all-reduce"][0]
    assert compiled_step.exchanges(config) == pytest.approx(counted, rel=0.15)


def test_one_device_exchanges_nothing():
    assert not list(collectives.find(compiled("batch", 1)[0]))
