"""Checkpoints of strangers and of older versions: what cannot be a model is one clear line, before memory is taken."""

import copy
import resource

import pytest
import small_model

import introvae_jax
from introvae_jax import config as config_lib
from introvae_jax import inference, model
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError


@pytest.fixture(scope="module")
def config():
    return small_model.image_config()


@pytest.fixture(scope="module")
def variables(config):
    return small_model.variables_of(config)


@pytest.fixture(scope="module")
def workdir(config, variables, tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("load") / "run", config, variables)


ODD = {
    "no config": None,
    "a list": [1],
    "no sections": {},
    "a section that is none": {"model": 3, "data": {}},
    **{
        f"{key} = {value!r}": {key: value}
        for key, values in {
            "model.z_dim": (10**9, 0, -1, 5.0, "5", None, True, [5], {"a": 1}),
            "model.channels": ((), (8, 8), (8, 8, 0), (8, 8, 2.5), "abc", (8, 8, 10**9), 8, None),
            "data.size": (33, 2**40, "32", 32.0, None, 0),
            "data.channels": (2, 1.0, "1", None),
            "data.crop": ("middle", 5), "data.resize": ("nearest", None),
            "model.network": ("gan", None, ["mlp"]), "model.norm": ("layer", 1, []), "model.dtype": ("float64", 32),
            "model.prior": ("cauchy", None), "model.block_norm": ("both",), "model.remat": ("no", None),
            "model.expand_equal": (1,),
        }.items()
        for value in values
    },
}  # fmt: skip


def changed(config, change):
    if not isinstance(change, dict) or not all("." in key for key in change) or not change:
        return change
    config = copy.deepcopy(config)
    for key, value in change.items():
        section, _, name = key.partition(".")
        config[section][name] = value
    return config


@pytest.mark.parametrize("case", ODD)
def test_a_config_that_describes_no_network_is_one_line(workdir, config, case, monkeypatch):
    record = {"config": changed(config, ODD[case]), "data_identity": ""}
    monkeypatch.setattr(Checkpoints, "restore_run", lambda *_: record)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="config") as error:
        introvae_jax.load(workdir)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB


@pytest.mark.parametrize(
    "change", [{"model.z_dim": 2**16}, {"model.channels": (8, 8, 2**12)}, {"data.channels": 3}, {"model.norm": "group"}]
)  # fmt: skip
def test_a_config_of_another_model_than_the_arrays_is_one_line(workdir, config, change, monkeypatch):
    record = {"config": changed(config, change), "data_identity": ""}
    monkeypatch.setattr(Checkpoints, "restore_run", lambda *_: record)
    monkeypatch.setattr("introvae_jax.checkpoints.restore._restore_arrays", None)  # nothing is read
    with pytest.raises(UserError, match="but the checkpoint's config requires"):
        introvae_jax.load(workdir)


def test_statistics_of_other_shapes_are_one_line(config, variables, tmp_path):
    without = [{"params": variables[0]["params"]}, variables[1]]
    small_model.save(tmp_path / "run", config, without)
    with pytest.raises(UserError, match=r"statistics: ema/encoder/.* is missing"):
        introvae_jax.load(tmp_path / "run")


def test_a_whole_checkpoint_gives_its_model(workdir, variables, config):
    trained = introvae_jax.load(workdir)
    assert trained.sample(2).shape == trained.reconstruct(trained.sample(2)).shape == (2, 32, 32, 1)
    assert (trained.step, trained.config) == (3, config)


def test_an_older_checkpoint_lacks_keys_and_has_one_set_of_statistics(workdir, variables, config, tmp_path):
    older = copy.deepcopy(config)
    for name in ("network", "prior", "block_norm", "expand_equal", "width", "depth"):
        del older["model"][name]
    del older["eval"], older["checkpoint"]
    small_model.save(tmp_path / "run", older, variables, kinds=("encoder", "decoder"))
    trained, newer = introvae_jax.load(tmp_path / "run"), introvae_jax.load(workdir)
    images = newer.sample(2)
    assert (trained.sample(2) == images).all()
    assert (trained.reconstruct(images) == newer.reconstruct(images)).all()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("batch_size", 2**62, "1,048,576 or less"), ("checkpoint.calibration_batches", 10**12, "4,194,304 or less"),
     ("model.z_dim", 2 * 10**9, "65,536 or less"), ("steps", 2**31, "2,147,483,647 or less"),
     ("model.channels", (8, 8, 10**9), "whole numbers from 1 to 65,536"), ("model.depth", 10**6, "1,024 or less")],
)  # fmt: skip
def test_sizes_that_no_machine_has_are_refused(config, key, value, said):
    from configs import digits

    wrong = digits.get_config()
    wrong.batch_size = 16
    wrong.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=said):
        config_lib.validate(wrong)


def test_shapes_take_no_memory(config):
    wide = changed(config, {"model.z_dim": 2**16, "model.channels": (8, 8, 2**14)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encoder = inference.variable_shapes(model.build_networks(wide)[0], model.example_shape(wide))
    assert encoder["params"]["moments"]["kernel"].shape == (4 * 4 * 2**14, 2 * 2**16)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
