"""Every change of an array or a record is seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from introvae_jax.checkpoints import checkpoint, digests
from introvae_jax.errors import UserError

TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [np.zeros((), np.int32), np.ones(4, np.uint8)]}


def test_arrays_are_named_by_their_path():
    assert list(digests.of_arrays(TREE)) == digests.paths(TREE) == ["a", "b/0", "b/1"]


def test_a_checkpoint_of_another_version_stays_where_it_is(tmp_path):
    written = checkpoint.Checkpoints(tmp_path, keep=1)
    written.save(3, {"old": np.zeros(2)}, {"mean": np.zeros(1)}, {"config": {}, "data_identity": ""})
    written.wait()
    with pytest.raises(UserError, match=r"another version of introvae_jax wrote it, with other arrays \(such as new\)"):
        written.restore_state(3, {"new": jnp.zeros(2)})
    written.close()


def test_the_same_values_have_the_same_digest_wherever_they_are():
    on_device = jax.tree.map(jnp.asarray, TREE)
    devices = jax.sharding.NamedSharding(jax.sharding.Mesh(jax.devices(), "x"), jax.sharding.PartitionSpec())
    for tree in (on_device, jax.device_put(on_device, devices), jax.tree.map(np.asfortranarray, TREE)):
        assert digests.of_arrays(tree) == digests.of_arrays(TREE)


@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_one_bit_is_enough(place):
    changed = {"a": TREE["a"].copy(), "b": TREE["b"]}
    changed["a"].view(np.uint32)[place] ^= 1
    assert digests.differing(changed, digests.of_arrays(TREE)) == ["a"]
    assert digests.differing(TREE, digests.of_arrays(TREE)) == []


def test_arrays_without_a_digest_are_passed_over():
    assert digests.differing(TREE, {"b/1": "00000000"}) == ["b/1"]


def test_a_record_keeps_its_digest_through_json():
    import json

    record = {"z": (1, 2), "a": {"rate": 2e-4, "third": 1 / 3, "none": ""}}
    assert digests.of_record(json.loads(json.dumps(record))) == digests.of_record(record)
    assert digests.of_record(record | {"z": (1, 3)}) != digests.of_record(record)
