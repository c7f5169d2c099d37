"""From a config to its plan."""

import dataclasses

import ml_collections

from introvae_jax import config as config_lib
from introvae_jax.planning import program, target
from introvae_jax.planning.report import Plan


def plan(config: ml_collections.ConfigDict, name: str, compiled_for: str = target.HERE) -> Plan:
    """Compiles the step for one device at the config's batch and at half of it (twice it, if it is 1).

    name: of the config, for the title. compiled_for: of target.TARGETS.
    Raises UserError for a config that cannot train, and for a target that is not at hand.
    """
    config_lib.validate(config)
    (device,) = target.devices(compiled_for)
    batch, parts = config.batch_size, config.accumulate
    whole = program.measure(config, device, batch)
    other = program.measure(config, device, max(batch // 2 // parts * parts, parts) if batch > parts else 2 * batch)
    if parts > 1:  # a compiler counts the work of a loop once, however often it runs
        config = config.copy_and_resolve_references()
        config.accumulate = 1
        at_once = program.measure(config, device, batch)
        whole = dataclasses.replace(whole, flops=at_once.flops, moved=at_once.moved, operations=at_once.operations)
    side = f"{config.data.size} pixels" if config.data.source != "density" else "points"
    return Plan(
        title=f"{name}: {side}, batch {batch}, {config.objective.name}, {config.model.dtype}",
        parameters=program.parameters(config), program=whole, other=other, steps=config.steps,
        dtype=config.model.dtype, exchanges=program.exchanges(config),
        compiled_for=f"{device.device_kind} ({device.platform})",
    )  # fmt: skip
