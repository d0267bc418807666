"""Actor systems that are stopped after their test."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from tests.support.actor_world import DEADLINE, World


@pytest.fixture
def world() -> Iterator[World]:
    """A world; its system is stopped in the end."""
    world = World()
    yield world
    if world.system is not None:
        with gevent.Timeout(DEADLINE):
            world.system.stop(timeout=1)
