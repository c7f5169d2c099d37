"""Creates the optimizer of each network from config values."""

import optax

SCHEDULES = ("constant", "cosine", "step")


def schedule(
    name: str, *, learning_rate: float, steps: int, decay_steps: tuple[int, ...], decay_factor: float
) -> optax.Schedule:
    """Learning rate by step: "constant", "cosine" (to 0 at `steps`) or "step".

    "step" multiplies the rate by `decay_factor` at each of `decay_steps`.
    """
    if name == "cosine":
        return optax.cosine_decay_schedule(learning_rate, steps)
    if name == "step":
        return optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(decay_steps, decay_factor))
    return optax.constant_schedule(learning_rate)


def every(updates: int, rate: optax.Schedule) -> optax.Schedule:
    """Converts a schedule over steps to a schedule over optimizer updates, for `updates` updates per step."""
    return lambda count: rate(count // updates)


def create(
    rate: optax.Schedule, *, beta1: float, beta2: float, epsilon: float, clip_norm: float
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) after clipping by global norm; clip_norm 0 disables clipping."""
    adam = optax.adam(rate, b1=beta1, b2=beta2, eps=epsilon)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm > 0 else adam
