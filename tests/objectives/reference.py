"""Every objective a second time, in float64 numpy: small nonlinear networks, both losses, central differences.

Each loss is a function of the one network that it may move; what the equations hold constant is computed from
`frozen`, the encoder and the decoder that the loss does not move, and so cannot contribute to a finite difference.
Images are rows of VALUES numbers here. At the end the same networks in flax, and one step of the package's own.
"""

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from introvae_jax import objectives, parallel
from introvae_jax.nets import residual
from introvae_jax.training import state as state_lib
from introvae_jax.training import step as step_lib

SHAPE, VALUES, Z, HIDDEN, BATCH = (2, 2, 1), 4, 2, 5, 8
RATE = 0.25  # of SGD: AGE's gradients are large


def layers(params, inputs):
    hidden = np.tanh(inputs @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    return hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]


def unit(v):
    return v / np.sqrt((v**2).sum(1, keepdims=True))


def encode(e, x):
    out = layers(e, x)
    return out[:, :Z], out[:, Z:]


def latents(e, x, eps):
    mu, logvar = encode(e, x)
    return mu + np.exp(logvar / 2) * eps


def kl(e, x):
    mu, logvar = encode(e, x)
    return (mu**2 + np.exp(logvar) - 1 - logvar).sum(1) / 2


def error(target, image):
    return ((image - target) ** 2).sum(1) / 2


def weighted(s, ae):
    rounding = VALUES / 24 / 255**2  # half the squared error that 8 bits leave on average
    return s["auto_beta"] * VALUES**0.5 * np.log(ae + rounding) if s.get("auto_beta") else s["beta"] * ae


def vae_encoder(e, frozen, s, b):
    ae = error(b.x, layers(frozen[1], latents(e, b.x, b.eps))).mean()
    return s["beta_kl"] * kl(e, b.x).mean() + weighted(s, ae)


def vae_decoder(d, z, frozen, s, b):
    return weighted(s, error(b.x, layers(d, z)).mean())


def introvae_encoder(e, frozen, s, b):
    loss = vae_encoder(e, frozen, s | {"beta_kl": 1.0}, b)
    margin = s["margin"]
    if s.get("margin_offset"):
        margin = kl(frozen[0], b.x).mean() + s["margin_offset"]
    for latent in (latents(frozen[0], b.x, b.eps), b.zp):
        term = kl(e, layers(frozen[1], latent))
        short = margin - (term.mean() if s["hinge"] == "batch" else term)
        loss += s["alpha"] * np.maximum(short, 0).mean()
    return loss


def introvae_decoder(d, z, frozen, s, b):
    judge = frozen[0]
    kls = kl(judge, layers(d, z)).mean() + kl(judge, layers(d, b.zp)).mean()
    return s["alpha_d"] * kls + vae_decoder(d, z, frozen, s, b)


def soft_introvae_encoder(e, frozen, s, b):
    e0, d0 = frozen
    ae = error(b.x, layers(d0, latents(e, b.x, b.eps))).mean()
    loss = s["beta"] * ae + s["beta_kl"] * kl(e, b.x).mean()  # the published loss divided by s = 1 / VALUES
    for latent, eps in ((latents(e0, b.x, b.eps), b.eps_rec), (b.zp, b.eps_fake)):
        image = layers(d0, latent)
        again = error(image, layers(d0, latents(e, image, eps)))
        loss += np.exp(-2 / VALUES * (s["beta"] * again + s["beta_neg"] * kl(e, image))).mean() / 4 * VALUES
    return loss


def soft_introvae_decoder(d, z, frozen, s, b):
    judge, d0 = frozen
    loss = s["beta"] * error(b.x, layers(d, z)).mean()
    for latent, eps in ((z, b.eps_rec), (b.zp, b.eps_fake)):
        image = layers(d0, latent)
        again = error(image, layers(d, latents(judge, image, eps))).mean()
        loss += s["beta_kl"] / 2 * kl(judge, layers(d, latent)).mean() + s["gamma"] / 2 * s["beta"] * again
    return loss


def age_latents(e, x):
    return unit(layers(e, x))


def age_image(d, z):
    return layers(d, unit(z))


def moments_kl(z):
    """m and s: the batch's mean and standard deviation in each dimension (Ulyanov et al. 2018)."""
    m, s = z.mean(0), z.std(0)
    return ((s**2 + m**2) / 2 - np.log(s) - 0.5).mean()


def age_encoder(e, frozen, s, b):
    z = age_latents(e, b.x)
    l1 = np.abs(age_image(frozen[1], z) - b.x).mean()
    return moments_kl(z) - moments_kl(age_latents(e, age_image(frozen[1], b.zp))) + s["match_x"] * l1


def age_decoder(d, z, frozen, s, b):
    back = age_latents(frozen[0], age_image(d, b.zp))
    return moments_kl(back) + s["match_z"] * (1 - (back * unit(b.zp)).sum(1).mean())


LOSSES = {
    name: (globals()[f"{name}_encoder"], globals()[f"{name}_decoder"])
    for name in ("vae", "introvae", "soft_introvae", "age")
}


def gradient(function, params, h=1e-5):
    """Central differences for every single parameter of the nested dictionary `params`."""
    grads = {}
    for layer, arrays in params.items():
        grads[layer] = {}
        for name, array in arrays.items():
            grad = grads[layer][name] = np.zeros_like(array)
            for i in np.ndindex(array.shape):
                sides = []
                for side in (h, -h):
                    moved = array.copy()
                    moved[i] += side
                    sides.append(function(params | {layer: arrays | {name: moved}}))
                grad[i] = (sides[0] - sides[1]) / (2 * h)
    return grads


class Network(nn.Module):
    """What `layers` computes."""

    features: int
    z_dim: int = Z
    sphere: bool = False
    axis_name: str | None = None

    def dense(self, features, x):
        return nn.Dense(features)(x)


class Encoder(Network):
    @nn.compact
    def __call__(self, x):
        out = self.dense(self.features, jnp.tanh(self.dense(HIDDEN, x.reshape(x.shape[0], -1))))
        if self.sphere:
            return out / jnp.linalg.norm(out, axis=1, keepdims=True), jnp.full_like(out, -jnp.inf)
        return out[:, :Z], out[:, Z:]


class Decoder(Network):
    @nn.compact
    def __call__(self, z):
        z = z / jnp.linalg.norm(z, axis=1, keepdims=True) if self.sphere else z
        return self.dense(self.features, jnp.tanh(self.dense(HIDDEN, z))).reshape(-1, *SHAPE)


def networks(sphere):
    return Encoder(Z if sphere else 2 * Z, sphere=sphere), Decoder(VALUES, sphere=sphere)


def replicas_of(devices):
    return parallel.replicas(tuple(jax.devices()[:devices]))


def build(name, settings):
    """An objective and whether its latents live on the sphere."""
    return objectives.OBJECTIVES[name](**settings), name == "age"


def fresh_state(pair, optimizers, shape):
    """Parameters from numpy: initialising networks would take most of a test's time."""
    shapes = jax.eval_shape(lambda: state_lib.create(jax.random.key(0), *pair, optimizers, shape))
    draw = np.random.default_rng(7)

    def parameter(path, leaf):
        scale = 0.3 if leaf.ndim == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        values = scale * draw.standard_normal(leaf.shape) + (path[-1].key == "scale")
        return jnp.asarray(values, jnp.float32)

    networks = (
        state_lib.NetworkState.create(jax.tree_util.tree_map_with_path(parameter, network.params), optimizer)
        for network, optimizer in zip((shapes.encoder, shapes.decoder), optimizers, strict=True)
    )
    return state_lib.State(jnp.int32(0), jnp.array([0, 7], jnp.uint32), *networks)


@dataclasses.dataclass
class Step:
    """One SGD step: [encoder, decoder] before and after in float64, the draws, and the reported terms.

    priors: zp of each update of the decoder.
    """

    before: list
    after: list
    batch: objectives.base.Batch
    priors: list
    terms: dict


def one_step(name, settings, order, updates=1):
    objective, sphere = build(name, settings)
    pair, optimizers, replicas = networks(sphere), (optax.sgd(RATE),) * 2, replicas_of(1)
    state = fresh_state(pair, optimizers, SHAPE)
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE), dtype=np.uint8)
    step = step_lib.make_step(
        *pair, objective, optimizers, replicas,
        update_order=order, ema_decay=0.9, mirror=False, global_batch=BATCH, decoder_updates=updates,
    )  # fmt: skip
    moved, terms = jax.jit(step)(state, images)
    batch = step_lib.draw_batch(state, jnp.asarray(images), Z, False, BATCH, replicas)
    priors = [batch.zp] + [
        step_lib.draw_latents(state, step_lib.NEXT_PRIOR + i, (BATCH, Z), BATCH, replicas) for i in range(1, updates)
    ]
    before, after = ([s.encoder.params, s.decoder.params] for s in (state, moved))
    batch = batch.replace(x=batch.x.reshape(BATCH, VALUES))
    return Step(*jax.tree.map(np.float64, (before, after, batch, priors, terms)))


def train(name, settings, devices, rate, steps=4, updates=1, **options):
    """`steps` SGD steps of the residual networks with BatchNorm; the terms of each step and the last state."""
    replicas, (objective, sphere) = replicas_of(devices), build(name, settings)
    options |= {"channels": (8,), "z_dim": 6, "sphere": sphere, "axis_name": replicas.axis_name}
    pair, optimizers = (residual.Encoder(**options), residual.Decoder(**options, image_channels=1)), (optax.sgd(rate),)
    state = replicas.replicate(fresh_state(pair, optimizers * 2, (8, 8, 1)))
    step = replicas.map(
        step_lib.make_step(
            *pair, objective, optimizers * 2, replicas, decoder_updates=updates,
            update_order="alternating", ema_decay=0.9, mirror=True, global_batch=16,
        )
    )  # fmt: skip
    images, history = np.random.default_rng(0), []
    for _ in range(steps):
        state, terms = step(state, replicas.split(images.integers(0, 256, (16, 8, 8, 1), dtype=np.uint8)))
        history.append(jax.device_get(terms))
    return history, jax.device_get(state)


def assert_same_training(one, other):
    """Terms within 1e-3 relative, parameters within 1e-3 of their scale."""
    for terms, again in zip(one[0], other[0], strict=True):
        for name, value in terms.items():
            np.testing.assert_allclose(again[name], value, rtol=1e-3, atol=1e-3, err_msg=name)
    moved, again = (jax.tree.leaves((state.encoder.params, state.decoder.params)) for _, state in (one, other))
    for a, b in zip(moved, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * max(np.abs(a).max(), 1e-3))
