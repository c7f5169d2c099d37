"""Models with random weights, made in a second: for what does not depend on training."""

import jax
import numpy as np

from configs import digits, toy2d
from introvae_jax import config as config_lib
from introvae_jax import model
from introvae_jax.checkpoints.checkpoint import Checkpoints


def of_images(batch_size=4, channels=1, seed=0):
    """A model of 32x32 images with five latents."""
    config = image_config("group")
    config["data"]["channels"] = channels
    return model.Model.create(
        config, *(variables["params"] for variables in variables_of(config, seed)), {},
        step=7, weights="ema", batch_size=batch_size,
    )  # fmt: skip


def of_points(batch_size=4):
    """A model of points with two latents."""
    config = toy2d.get_config("rings,introvae")
    config.model.width, config.model.depth = 8, 1
    config = config_lib.to_dict(config)
    params = (variables["params"] for variables in variables_of(config))
    return model.Model.create(config, *params, {}, step=7, weights="ema", batch_size=batch_size)


def image_config(norm="batch"):
    config = digits.get_config()
    config.model.channels, config.model.z_dim, config.model.norm = (8, 8, 8), 5, norm
    return config_lib.to_dict(config)


def variables_of(config, seed=0):
    """Variables of the encoder and of the decoder."""
    encoder, decoder = model.build_networks(config)
    shapes = ((encoder, model.example_shape(config)), (decoder, (decoder.z_dim,)))
    return [jax.device_get(net.init(jax.random.key(seed), np.zeros((1, *size), np.float32))) for net, size in shapes]


def save(workdir, config, variables, kinds=("encoder", "decoder", "decoder_rec"), **record):
    """A checkpoint of step 3 with what `load` reads."""
    encoder, decoder = variables
    found = {"encoder": encoder, "decoder": decoder, "decoder_rec": decoder}
    statistics = {kind: found[kind].get("batch_stats", {}) for kind in kinds}
    players = {"encoder": encoder, "decoder": decoder}
    state = {name: {"ema": each["params"], "params": each["params"]} for name, each in players.items()}
    checkpoints = Checkpoints(workdir, keep=1)
    record = {"config": config, "data_identity": "", **record}
    checkpoints.save(3, state, {"ema": statistics, "raw": statistics}, record)
    checkpoints.wait()
    checkpoints.close()
    return workdir
