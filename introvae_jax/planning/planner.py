"""Makes the plan of a config."""

import ml_collections

from introvae_jax import config as config_lib
from introvae_jax.planning import compiled_step, target
from introvae_jax.planning.report import Plan


def plan(config: ml_collections.ConfigDict, name: str, compiled_for: str = target.HERE) -> Plan:
    """Compiles the step for one device at the config's batch and at half of it (twice it, if it is 1).

    name: of the config, for the title. compiled_for: of target.TARGETS.
    Raises UserError for an invalid config, and for a target that is not available.
    """
    config_lib.validate(config)
    (device,) = target.devices(compiled_for)
    batch = config.batch_size
    whole = compiled_step.measure(config, device, batch)
    other = compiled_step.measure(config, device, batch // 2 if batch > 1 else 2)
    side = f"{config.data.size} pixels" if config.data.source != "density" else "points"
    return Plan(
        title=f"{name}: {side}, batch {batch}, {config.objective.name}, {config.model.dtype}",
        parameters=compiled_step.parameters(config), program=whole, other=other, steps=config.steps,
        dtype=config.model.dtype, exchanges=compiled_step.exchanges(config),
        compiled_for=f"{device.device_kind} ({device.platform})",
    )  # fmt: skip
