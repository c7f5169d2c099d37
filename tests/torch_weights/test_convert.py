"""Released weights from the file to images: the networks here give what PyTorch's gave."""

import hashlib
import pickle
import sys

import jax
import numpy as np
import pytest

from configs import celebahq, default
import introvae_jax
from introvae_jax.checkpoints.checkpoint import Checkpoints
from introvae_jax.errors import UserError
from introvae_jax.torch_weights import conversion, mapping, torch_file
from introvae_jax.training import train_loop

NETWORKS = {
    "introvae": "introvae", "introvae_expand": "introvae",
    "soft_introvae": "soft_introvae", "soft_introvae_expand": "soft_introvae",
}  # fmt: skip
FORMS = [
    "legacy", "module", "module_legacy", "parallel", "parallel_legacy",
    "nested", "nested_legacy", "nested_module", "nested_module_legacy", "nested_module_0_4_1",
]  # fmt: skip


def check_like_torch(workdir, expected):
    """Images, mu and logvar as PyTorch computed them, for both kinds of latents and weights."""
    inside = (expected["images"] > 0) & (expected["images"] < 1)
    assert inside.mean() > 0.5  # the others are clipped here
    for weights in ("ema", "raw"):
        trained = introvae_jax.load(workdir, weights=weights, batch_size=3)
        for posterior in (False, True):
            images = trained.decode(expected["z"], posterior=posterior)
            np.testing.assert_allclose(images, np.clip(expected["images"], 0, 1), rtol=0, atol=1e-5)
        mu, logvar = trained.encode(expected["x"])
        np.testing.assert_allclose(mu, expected["mu"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(logvar, expected["logvar"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_torch(name, saved, tmp_path):
    config, told = conversion.convert(saved / f"{name}.pth", tmp_path / "run", family=NETWORKS[name])
    check_like_torch(tmp_path / "run", np.load(saved / f"{name}.npz"))
    assert config.model.block_norm == conversion.BLOCK_NORM[NETWORKS[name]]
    assert config.model.expand_equal == name.endswith("expand")
    assert config.objective.name == NETWORKS[name]
    assert "z 5, channels 4" in told


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_weights(form, saved):
    whole = _variables(saved / "introvae.pth")
    jax.tree.map(np.testing.assert_array_equal, whole, _variables(saved / f"introvae_{form}.pth"))


def _variables(path):
    named = mapping.named_arrays(torch_file.read(path), "x")
    found = mapping.structure(named, "x")
    return mapping.variables(named, found.networks("sum"), found, "x")


def test_the_oldest_and_least_plain_form_all_the_way(saved, tmp_path):
    conversion.convert(saved / "introvae_nested_module_legacy.pth", tmp_path / "run")
    check_like_torch(tmp_path / "run", np.load(saved / "introvae.npz"))


def test_the_family_matters_and_the_arrays_do_not_tell(saved, tmp_path):
    conversion.convert(saved / "introvae.pth", tmp_path / "run", family="soft_introvae")
    expected = np.load(saved / "introvae.npz")
    images = introvae_jax.load(tmp_path / "run").decode(expected["z"])
    assert np.abs(images - np.clip(expected["images"], 0, 1)).max() > 0.01


def test_counts_of_the_released_networks():
    """The structure is found from the arrays alone, at the released sizes, with and without the 1x1 convolutions."""
    for expand, counts in {False: (22_711_456, 16_190_819), True: (22_973_600, 16_452_963)}.items():
        channels = (32, 64, 128, 256, 512, 512)
        wanted = mapping.Structure(256, 3, channels, 512, expand)
        named = _released_shapes(channels, expand)
        assert mapping.structure(named, "x") == wanted
        for net, count in zip(("encoder", "decoder"), counts, strict=True):
            sizes = [a.size for name, a in named.items() if name.startswith(net) and "running" not in name]
            assert sum(sizes) == count


def _released_shapes(channels, expand):
    """Arrays of the released names and shapes without memory, for 256x256x3 and z 512."""
    empty = lambda *shape: np.broadcast_to(np.float32(0), shape)  # noqa: E731
    named = {
        "encoder.main.0.weight": empty(channels[0], 3, 5, 5), "encoder.fc.weight": empty(1024, channels[-1] * 16),
        "encoder.fc.bias": empty(1024), "decoder.fc.0.weight": empty(channels[-1] * 16, 512),
        "decoder.fc.0.bias": empty(channels[-1] * 16), "decoder.main.predict.weight": empty(3, channels[0], 5, 5),
        "decoder.main.predict.bias": empty(3),
    }  # fmt: skip

    def norm(name, features):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            named[f"{name}.{leaf}"] = empty(features)

    def block(name, before, after, between):
        if before != after or (expand and between):
            named[f"{name}.conv_expand.weight"] = empty(after, before, 1, 1)
        named[f"{name}.conv1.weight"] = empty(after, before, 3, 3)
        named[f"{name}.conv2.weight"] = empty(after, after, 3, 3)
        norm(f"{name}.bn1", after)
        norm(f"{name}.bn2", after)

    norm("encoder.main.1", channels[0])
    for i, size in enumerate((128, 64, 32, 16, 8)):
        block(f"encoder.main.res_in_{size}", channels[i], channels[i + 1], True)
        block(f"decoder.main.res_in_{size}", channels[i + 1], channels[i], True)
    for place, features in (("encoder.main.res_in_4", channels[-1]), ("decoder.main.res_in_4", channels[-1]),
                            ("decoder.main.res_in_256", channels[0])):  # fmt: skip
        block(place, features, features, False)
    return named


def _changed(named, name, array):
    return {**named, name: array}


WRONG = {
    "missing": (lambda n: {k: v for k, v in n.items() if k != "decoder.main.predict.bias"},
                "decoder.main.predict.bias is missing"),
    "no stem": (lambda n: {k: v for k, v in n.items() if k != "encoder.main.0.weight"}, "encoder.main.0.weight is mis"),
    "left over": (lambda n: _changed(n, "encoder.main.res_in_8.bn3.weight", np.zeros(4)),
                  "encoder.main.res_in_8.bn3.weight is left over"),
    "left over beside": (lambda n: _changed(n, "classifier.weight", np.zeros(4)), "classifier.weight is not part"),
    "one network": (lambda n: {k: v for k, v in n.items() if k.startswith("encoder")}, r"decoder\..* is missing"),
    "shape": (lambda n: _changed(n, "encoder.main.res_in_8.conv2.weight", np.zeros((4, 4, 1, 1), np.float32)),
              r"encoder.main.res_in_8.conv2.weight has the shape \(4, 4, 1, 1\) where \(4, 4, 3, 3\) is needed"),
    "dimensions": (lambda n: _changed(n, "encoder.main.0.weight", np.zeros(4)), "4 dimensions are needed"),
    "type": (lambda n: _changed(n, "encoder.fc.bias", np.zeros(10, int)), "encoder.fc.bias is of type int64"),
    "not finite": (lambda n: _changed(n, "encoder.fc.bias", np.full(10, np.nan)), "encoder.fc.bias has values that"),
    "sizes": (lambda n: _changed(n, "encoder.main.res_in_64.bn1.bias", np.zeros(4)), "has the sizes 64, 8, 4"),
    "no sizes": (lambda n: {k: v for k, v in n.items() if "res_in" not in k}, "has the sizes none"),
    "mixed expansions": (lambda n: _changed(n, "encoder.main.res_in_8.conv_expand.weight", np.zeros((4, 4, 1, 1))),
                         "some blocks of equal channel counts have a conv_expand"),
    "no networks": (lambda n: {"fc.weight": np.zeros(4)}, r"no encoder and decoder in it \(there is fc.weight\)"),
    "nothing": (lambda n: {"epoch": 3}, r"no encoder and decoder in it \(there is no array at all\)"),
    "two models": (lambda n: {"model": n, "ema": n}, r"2 models in it \(at ema, model\)"),
    "twice": (lambda n: n | {f"module.{k}": v for k, v in n.items()}, "occurs twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_do_not_fit_are_named(case, saved):
    change, told = WRONG[case]
    content = change(torch_file.read(saved / "introvae.pth"))
    with pytest.raises(UserError, match=f"^file: .*{told}"):
        named = mapping.named_arrays(content, "file")
        found = mapping.structure(named, "file")
        mapping.variables(named, found.networks("sum"), found, "file")


def test_containers_without_end():
    own, many = {}, {"a": 1}
    own["own"] = own
    for _ in range(20):
        many = {"a": many, "b": many}
    for content in (own, many):
        with pytest.raises(UserError, match="nested too deep"):
            mapping.named_arrays(content, "file")


def _config(**model):
    config = default.get_config()
    config.data.size, config.model.channels, config.model.z_dim = 16, (4, 4), 5
    config.model.update(model)
    return config


def test_a_config_that_does_not_fit_is_told_key_by_key(saved, tmp_path):
    for config, told in (
        (_config(z_dim=7), r"config.model.z_dim = 7, and 5 in the file.*add --config.model.z_dim=5"),
        (_config(channels=(4, 8)), r"config.model.channels = \(4, 8\), and \(4, 4\) in the file"),
        (_config(expand_equal=True), r"config.model.expand_equal = True, and False in the file"),
        (_config(block_norm="branch"), r"config.model.block_norm = 'branch', and 'sum' in the file"),
    ):
        with pytest.raises(UserError, match=told):
            conversion.convert(saved / "introvae.pth", tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_the_released_config_takes_the_weights_that_the_released_script_saves():
    """convert.py refuses a config that does not agree; reading 150 MB of weights would add nothing."""
    found = mapping.structure(_released_shapes((32, 64, 128, 256, 512, 512), expand=True), "x")
    needed = conversion._needed(found, "introvae")
    conversion._require_agreement(celebahq.get_config("256,released"), needed, "file")
    with pytest.raises(UserError, match=r"config.model.expand_equal = False, and True in the file"):
        conversion._require_agreement(celebahq.get_config("256"), needed, "file")


def test_outside_the_repository_a_config_is_needed(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "configs", None)
    with pytest.raises(UserError, match=r"configs/default.py is not here: run this in the repository's folder, or"):
        conversion.convert(saved / "introvae.pth", tmp_path / "run")


def test_the_main_job_goes_on_from_the_weights(saved, tmp_path, image_folder):
    weights, workdir, config = saved / "introvae.pth", tmp_path / "run", _config()
    config.steps, config.batch_size, config.data.path = 2, 4, str(image_folder)
    config.checkpoint.calibration_batches, config.objective.name = 1, "vae"  # which compiles fast
    conversion.convert(weights, workdir, config=config)
    stored = Checkpoints(workdir).restore_run(0)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert stored["converted_from"] == {"file": "introvae.pth", "sha256": digest, "family": "introvae"}
    before = introvae_jax.load(workdir, weights="raw")

    train_loop.train(config, workdir)
    after = introvae_jax.load(workdir, weights="raw")
    assert (before.step, after.step) == (0, 2)
    assert Checkpoints(workdir).restore_run(2)["data_identity"] != ""
    for old, new in ((before.encoder_variables, after.encoder_variables),
                     (before.decoder_variables, after.decoder_variables)):  # fmt: skip
        change = jax.tree.map(lambda a, b: np.abs(a - b).max(), old["params"], new["params"])
        # Adam moves no parameter by more than about its rate, and only from the released ones.
        assert 0 < max(jax.tree.leaves(change)) < 2.5 * 2 * config.optim.learning_rate
    with pytest.raises(UserError, match=r"has checkpoints already \(step 2\); choose another --workdir"):
        conversion.convert(weights, workdir, config=config)


def test_the_command(saved, tmp_path, run_command):
    weights, workdir = f"--weights={saved / 'soft_introvae.pth'}", f"--workdir={tmp_path / 'run'}"
    (tmp_path / "torch.py").write_text("raise ImportError")  # as where PyTorch is not installed
    done = run_command(
        "introvae_jax.convert", weights, workdir, "--family=soft_introvae", PYTHONPATH=str(tmp_path)
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said, sample, train = done.stdout.splitlines()
    assert "soft_introvae, 16x16x1, z 5, channels 4 5; encoder 1,833 and decoder 1,715 parameters" in said
    assert sample.endswith(f"introvae_jax.sample {workdir}")
    assert "--config=configs/default.py" in train
    for flag in ("--config.data.size=16", "'--config.model.channels=(4, 5)'", "--config.model.block_norm=branch",
                 "--config.objective.name=soft_introvae", "--config.data.path=DIR", workdir):  # fmt: skip
        assert flag in train
    check_like_torch(tmp_path / "run", np.load(saved / "soft_introvae.npz"))


def test_a_mistake_is_one_line(saved, tmp_path, run_command):
    weights = tmp_path / "evil.pth"
    weights.write_bytes(b"\x80\x02cposix\nsystem\n" + pickle.dumps("true", 2)[2:-1] + b"\x85R.")
    failed = run_command("introvae_jax.convert", f"--weights={weights}", f"--workdir={tmp_path / 'run'}")
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"introvae_jax: error: {weights}: refused: the pickle asks for posix.system")
    assert not (tmp_path / "run").exists()
