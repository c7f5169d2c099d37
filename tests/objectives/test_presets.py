"""Presets against their sources: the authors' scripts and code, whose own arithmetic is written out here."""

import pytest

from configs import celebahq

RELEASED = ("256,released", "1024,released")


@pytest.mark.parametrize("argument", RELEASED)
def test_the_released_code_updates_alternately(argument):
    assert celebahq.get_config(argument).objective.update_order == "alternating"
