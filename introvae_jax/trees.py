"""The type of trees of arrays. JAX has none: any nesting of containers that it knows is one."""

from typing import Any

PyTree = Any
