"""A small classifier of the embedded digits, for digits_quality and ablation_scores.

    python -m benchmarks.digits_classifier

Trained on the training split alone, with random affine distortions; about a minute on two CPU cores.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from introvae_jax.data import digits

STEPS, BATCH_SIZE, LEARNING_RATE = 3_000, 64, 2e-3
CONFIDENT = 0.9
MAX_SHIFT, MAX_ROTATION, MAX_SCALE = 2.0, 0.2, 0.1  # pixels, radians, relative


class Classifier(nn.Module):
    """Images [B, 32, 32, 1] in [0, 1] -> logits [B, 10]."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for features in (24, 48, 96):
            x = nn.Conv(features, (5, 5), strides=(2, 2), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.98)(x))
        x = nn.Dropout(0.4, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(10)(x)


def distort(key: jax.Array, image: jax.Array) -> jax.Array:
    """`image` [32, 32, 1] shifted, rotated and scaled a little."""
    shift, angle, scale = jax.random.split(key, 3)
    angle = jax.random.uniform(angle, minval=-MAX_ROTATION, maxval=MAX_ROTATION)
    scale = 1 + jax.random.uniform(scale, minval=-MAX_SCALE, maxval=MAX_SCALE)
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]]) / scale
    grid = jnp.stack(jnp.meshgrid(jnp.arange(32.0), jnp.arange(32.0), indexing="ij")).reshape(2, -1) - 15.5
    grid = turn @ grid + 15.5 + jax.random.uniform(shift, (2, 1), minval=-MAX_SHIFT, maxval=MAX_SHIFT)
    return jax.scipy.ndimage.map_coordinates(image[..., 0], grid, order=1).reshape(32, 32, 1)


def train(seed: int = 0) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """A function from images [N, 32, 32, 1] in [0, 1] to class probabilities [N, 10], and its held-out accuracy."""
    (images, labels), test = digits.load(), digits.is_test()
    images = np.float32(images) / 255
    network, optimizer = Classifier(), optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, STEPS), weight_decay=1e-3)
    variables = network.init(jax.random.key(seed), images[:1])
    params, stats = variables["params"], variables["batch_stats"]

    @jax.jit
    def step(params, stats, opt_state, x, y, key):
        key_distort, key_dropout = jax.random.split(key)
        x = jax.vmap(distort)(jax.random.split(key_distort, len(x)), x)

        def loss(params):
            logits, updated = network.apply(
                {"params": params, "batch_stats": stats}, x, train=True, mutable="batch_stats",
                rngs={"dropout": key_dropout},
            )  # fmt: skip
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), updated["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state

    opt_state, order = optimizer.init(params), np.random.default_rng(seed)
    train_images, train_labels = images[~test], labels[~test].astype(np.int32)
    for i in range(STEPS):
        rows = order.integers(0, len(train_images), BATCH_SIZE)
        key = jax.random.fold_in(jax.random.key(seed + 1), i)
        params, stats, opt_state = step(params, stats, opt_state, train_images[rows], train_labels[rows], key)

    predict = jax.jit(lambda x: jax.nn.softmax(network.apply({"params": params, "batch_stats": stats}, x)))

    def probabilities(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(predict(part)) for part in np.array_split(x, -(-len(x) // 500))])

    accuracy = float(np.mean(probabilities(images[test]).argmax(1) == labels[test]))
    return probabilities, accuracy


def verdict(probabilities: np.ndarray) -> dict[str, float]:
    """Metrics of class probabilities [N, 10] of samples.

    recognised: share named with a probability over CONFIDENT. entropy of the named classes, in nats; log 10 = 2.303
    when all are equally frequent. rarest: share of the rarest class, 0.1 then.
    """
    shares = np.bincount(probabilities.argmax(1), minlength=10) / len(probabilities)
    present = shares[shares > 0]
    return {
        "recognised": float(np.mean(probabilities.max(1) > CONFIDENT)),
        "entropy": float(-np.sum(present * np.log(present))),
        "rarest": float(shares.min()),
    }


if __name__ == "__main__":
    print(f"held-out accuracy {train()[1]:.1%}")
