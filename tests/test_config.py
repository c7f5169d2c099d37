"""Every rule on a config value, and what a resumed run may change."""

import ast
import dataclasses
import importlib.util
import math
import pathlib
import re

import pytest

from introvae_jax import config as config_lib
from introvae_jax import main, objectives
from introvae_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def load(name, *argument):
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*argument)


@pytest.mark.parametrize(
    ("name", "argument"),
    [("default", ()), ("digits", ()), ("folder", ()), ("celebahq", ()), ("celebahq", ("128",)),
     ("celebahq", ("1024",)), ("celebahq", ("256,released",)), ("celebahq", ("1024,released",)),
     ("celeba", ()), ("celeba", ("128",)), ("ffhq", ()), ("ffhq", ("1024",)), ("lsun", ()), ("lsun", ("church",)),
     ("celebahq", ("256,soft_introvae",)), ("cifar10", ()), ("cifar10", ("soft_introvae",)), ("cifar10", ("age",)),
     *(("digits", (name,)) for name in objectives.OBJECTIVES),
     *(("toy2d", (f"{density},{name},{job}",)) for density in ("8gaussians", "2spirals", "checkerboard", "rings")
       for name in ("introvae", "soft_introvae", "vae") for job in ("small", "published")),
     *(("avatars", (str(2**k),)) for k in range(4, 11))],
)  # fmt: skip
def test_every_config_is_valid(name, argument):
    config_lib.validate(load(name, *argument))


def test_celebahq_holds_the_paper_s_settings():
    expected = {"128": (110, 0.5, 256), "256": (120, 0.05, 512), "1024": (90, 0.0025, 512)}
    for resolution, (margin, beta, z_dim) in expected.items():
        config = load("celebahq", resolution)
        values = (config.objective.margin, config.objective.beta, config.model.z_dim)
        assert (values, config.objective.alpha) == ((margin, beta, z_dim), 0.25)
    assert load("celebahq") == load("celebahq", "256")
    released = load("celebahq", "1024,released").objective
    assert (released.alpha, released.alpha_d, released.beta) == (0.5, 0.5, 0.02)


def test_celebahq_names_the_choices():
    with pytest.raises(ValueError, match="512,paper: no such settings; choose one of 128,paper"):
        load("celebahq", "512")


BAD = {
    "data.size": (33, "a power of two from 16 to 1024"),
    "model.channels": ((8, 8), "4 channel counts"),
    "data.channels": (2, "one of 1, 3"),
    "data.source": ("s3", "'digits', 'folder', 'tfds'"),
    "data.crop": ("middle", '"WxH+X+Y"'),
    "data.cache": ("disk", "'host', 'device'"),
    "batch_size": (0, "1 or more"),
    "checkpoint.rollbacks": (-1, "0 or more"),
    "seed": (2**32, "below 2**32"),
    "objective.name": ("gan", "'introvae', 'vae'"),
    "objective.hinge": ("pixel", "'batch', 'sample'"),
    "objective.margin": (-1.0, "0 or more"),
    "objective.beta": (0.0, "above 0"),
    "objective.beta_kl": (0.0, "above 0"),
    "objective.beta_neg": (-1.0, "0 or more"),
    "objective.warmup_beta": (-1.0, "0 or more"),
    "objective.margin_offset": (-1.0, "0 or more"),
    "objective.auto_beta": (-1.0, "0 or more"),
    "objective.decoder_updates": (0, "1 or more"),
    "model.prior": ("sphere", "'normal' for objective.name = 'introvae'"),
    "model.network": ("mlp", "'residual' for images"),
    "model.block_norm": ("none", "'sum', 'branch'"),
    "optim.ema_decay": (1.0, "at least 0 and below 1"),
    "optim.learning_rate": (float("nan"), "a finite number"),
    "optim.epsilon": (0.0, "above 0"),
    "optim.decay_factor": (1.0, "at least 0 and below 1"),
    "optim.schedule": ("linear", "'constant', 'cosine', 'step'"),
    "model.norm": ("layer", "'batch', 'group', 'none'"),
    "model.dtype": ("float16", "'float32', 'bfloat16'"),
    "data.test_fraction": (1.0, "above 0 and below 1"),
    "checkpoint.keep": (0, "1 or more"),
    "eval.every": (-1, "0 or more"),
    "eval.metrics": (("fid10k", "fib"), "'fib' is no metric"),
    "eval.best": ("swd", "one of config.eval.metrics"),
}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_value_is_named_with_what_is_allowed(key):
    value, allowed = BAD[key]
    config = load("default")
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as error:
        config_lib.validate(config)
    assert f"config.{key} = {value!r}" in str(error.value)
    assert allowed in str(error.value)


@pytest.mark.parametrize("name", ["folder", "digits", "celebahq"])
@pytest.mark.parametrize("size", [2**k for k in range(4, 11)])
def test_a_size_without_its_channels_names_an_override_that_works(name, size):
    """The message's own override, taken as the command line would take it."""
    config = load(name)
    config.data.source, config.data.channels, config.data.size = "folder", 3, size
    config.data.path = "DIR"
    if len(config.model.channels) == int(math.log2(size / 4)):
        config.model.channels = ()
    with pytest.raises(UserError) as error:
        config_lib.validate(config)
    override = re.search(r'--config\.model\.channels="(.*)"', str(error.value))[1]
    config.model.channels = ast.literal_eval(override)
    config_lib.validate(config)


def test_an_automatic_beta_holds_in_the_warm_up_and_for_images():
    config = load("celebahq", "1024,released")
    config.objective.auto_beta = 1.0
    with pytest.raises(
        UserError, match=r"objective\.warmup_beta = 2\.0: must be 0 where objective\.auto_beta is above 0"
    ):
        config_lib.validate(config)
    points = load("toy2d")
    points.objective.auto_beta = 1.0
    with pytest.raises(UserError, match=r"objective\.auto_beta = 1\.0: must be 0\.0 for data\.source = 'density'"):
        config_lib.validate(points)
    soft = load("digits", "soft_introvae")
    soft.objective.auto_beta = 1.0
    with pytest.raises(UserError, match=r"objective\.auto_beta = 1\.0: must be 0 for objective.name = 'soft_introvae'"):
        config_lib.validate(soft)


@pytest.mark.parametrize("word", ["ood", "ood100", " ood"])
def test_images_of_another_kind_are_not_scored_while_training(word):
    config = load("digits")
    config.eval.metrics = ("swd", word)
    with pytest.raises(UserError, match=r"metrics without 'ood', which needs other images: introvae_jax\.evaluate"):
        config_lib.validate(config)


def test_scoring_needs_metrics_and_images():
    config = load("digits")
    config.eval.metrics = ()
    config_lib.validate(config)
    config.eval.every = 100
    with pytest.raises(UserError, match=r"eval\.metrics = \(\): must be one or more"):
        config_lib.validate(config)
    points = load("toy2d")
    points.eval.every = 100
    with pytest.raises(UserError, match=r"eval\.every = 100: must be 0 for points"):
        config_lib.validate(points)


def test_scoring_may_change_in_a_resumed_run():
    stored, config = config_lib.to_dict(load("digits")), load("digits")
    config.eval.every, config.eval.metrics, config.eval.best = 50, ("swd1k", "msssim"), "msssim"
    config_lib.validate(config)
    config_lib.check_resume(stored, config, "RUN")


def test_group_norm_and_step_schedule_have_rules_of_their_own():
    config = load("default")
    config.model.norm, config.model.channels = "group", (8, 12, 8, 8)
    with pytest.raises(UserError, match="multiples of 8"):
        config_lib.validate(config)
    config = load("default")
    config.optim.schedule = "step"
    with pytest.raises(UserError, match="decay_steps"):
        config_lib.validate(config)


def test_a_resumed_run_may_change_its_length_and_logging_only():
    stored = config_lib.to_dict(load("digits"))
    config = load("digits")
    config.steps, config.log.every, config.checkpoint.keep = 9_999, 7, 5
    config_lib.check_resume(stored, config, "RUN")
    config.objective.margin = 31.0
    with pytest.raises(UserError, match=r"RUN holds another experiment \(config.objective.margin: .* 31.0 now"):
        config_lib.check_resume(stored, config, "RUN")


def test_a_run_from_before_a_key_resumes_as_it_began():
    """What a run without the key did is the key's neutral value: another one would train on with other numbers."""
    neutral = {"objective.warmup_beta": 0.0, "objective.margin_offset": 0.0, "objective.auto_beta": 0.0,
               "optim.epsilon": 1e-8, "optim.decay_factor": 0.1}  # fmt: skip
    stored, config = config_lib.to_dict(load("digits")), load("digits")
    for key, value in neutral.items():
        section, name = key.split(".")
        assert stored[section].pop(name) == value
    config_lib.check_resume(stored, config, "RUN")
    for key in neutral:
        changed = load("digits")
        changed.update_from_flattened_dict({key: 0.25})
        with pytest.raises(UserError, match=rf"config\.{key}: {neutral[key]} there, 0.25 now"):
            config_lib.check_resume(stored, changed, "RUN")


def test_the_length_of_a_cosine_schedule_may_not_change():
    config = load("digits")
    config.optim.schedule = "cosine"
    stored = config_lib.to_dict(config)
    config.steps += 1
    with pytest.raises(UserError, match=r"config\.steps"):
        config_lib.check_resume(stored, config, "RUN")


def test_every_key_is_read_somewhere():
    """By its full name, as config.optim.beta1, optim.beta1 or optim["beta1"], or as a field of an objective."""
    files = [p for p in (CONFIGS.parent / "introvae_jax").rglob("*.py") if p.name != "config.py"]
    code = "\n".join(p.read_text() for p in files)
    fields = {field.name for cls in objectives.OBJECTIVES.values() for field in dataclasses.fields(cls)}
    for key in config_lib.flatten(load("default")):
        section, _, name = key.rpartition(".")
        read = re.search(rf'\b{section or "config"}(\.{name}\b|\["{name}"\])', code)
        by_name = section == "data" and f'data["{name}"]' in code
        assert read or by_name or (section == "objective" and name in fields), f"config.{key} is read by nobody"


def test_a_misspelt_key_in_a_config_file_is_an_error():
    config = load("default")
    with pytest.raises(AttributeError, match="learning_rate"):
        config.optim.learning_rat = 1.0


def test_a_config_without_a_key_is_refused():
    config = load("default").unlock()
    del config.optim.clip_norm
    with pytest.raises(UserError, match=r"config\.optim\.clip_norm is missing"):
        config_lib.validate(config)


def test_a_warm_up_that_never_ends_is_warned_of(capsys):
    config = load("digits")
    config.objective.warmup_steps = config.steps
    config_lib.validate(config)
    assert "trains a plain VAE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "overrides", "workdir"),
    [("configs/digits.py", {}, "runs/digits"), ("configs/celebahq.py:1024", {}, "runs/celebahq_1024"),
     ("configs/celebahq.py:256,released", {}, "runs/celebahq_256_released"),
     ("configs/celebahq.py", {"data.path": "/sets", "steps": 7}, "runs/celebahq"),
     ("configs/folder.py", {"data.path": "/images/faces"}, "runs/folder_faces"),
     ("configs/folder.py", {"data.path": "images/faces/"}, "runs/folder_faces"),
     ("configs/folder.py", {"data.path": "images/my cats.zip"}, "runs/folder_my_cats.zip"),
     ("configs/folder.py", {"data.source": "tfds", "data.name": "faces/64"}, "runs/faces_64"),
     ("configs/digits.py", {"data.source": "folder", "data.path": "faces"}, "runs/digits_faces"),
     ("configs/digits.py:vae", {"data.source": "folder", "data.path": "faces"}, "runs/digits_vae_faces"),
     ("configs/avatars.py", {"data.name": "micah/64"}, "runs/avatars_micah_64"),
     ("configs/folder.py", {"data.source": "digits"}, "runs/folder_digits")],
)  # fmt: skip
def test_the_work_directory_is_named_after_the_config_and_the_images(argument, overrides, workdir):
    config = load(pathlib.Path(argument.partition(":")[0]).stem)
    source = overrides.get("data.source", config.data.source)
    assert main.default_workdir(argument, overrides, source) == workdir


def test_metrics_may_come_in_one_word_with_commas_and_what_ranks_must_rank():
    config = load("digits")
    config.eval.metrics, config.eval.best = ("swd1k, active_units",), "swd1k"
    config_lib.validate(config)
    config.eval.best = "active_units"
    with pytest.raises(UserError, match="a metric that can rank checkpoints; active_units cannot"):
        config_lib.validate(config)


def test_a_run_that_used_a_removed_key_is_not_resumed():
    config = load("digits")
    stored = config_lib.to_dict(config)
    config_lib.check_resume({**stored, "accumulate": 1}, config, "RUN")
    with pytest.raises(UserError, match=r"RUN was trained with config.accumulate = 4, which this version no longer"):
        config_lib.check_resume({**stored, "accumulate": 4}, config, "RUN")
