"""Any sequence of failures, additions and removals leaves the tree as a simple model of OTP's rules says."""

from __future__ import annotations

import gevent
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.runtime import Backoff, ChildSpec, Failed, Intensity, Restart, StartError, Strategy
from tests.support.actor_world import Probe, World, failing

LIMIT = 3


class SupervisorMachine(RuleBasedStateMachine):
    """One supervisor, compared with a list of names and a log of starts and stops after every step."""

    @initialize(strategy=st.sampled_from(Strategy), count=st.integers(1, 4), data=st.data())
    def start(self, strategy: Strategy, count: int, data: st.DataObject) -> None:
        self.world = World()
        self.strategy = strategy
        self.kinds: dict[str, Restart] = {}
        self.log: list[tuple[str, str]] = []
        self.restarts = 0
        self.number = 0
        self.system = self.world.run(strategy=strategy, backoff=Backoff(0, 0), intensity=Intensity(LIMIT, within=3600))
        for _ in range(count):
            self.add(data.draw(st.sampled_from(Restart)))

    @property
    def down(self) -> bool:
        return self.restarts > LIMIT

    @rule(kind=st.sampled_from(Restart))
    def add(self, kind: Restart) -> None:
        self.number += 1
        name = f"n{self.number}"
        if self.down:
            with pytest.raises(StartError):
                self.system.add_child("root", ChildSpec(name, Probe))
            return
        self.system.add_child("root", ChildSpec(name, Probe, args=(self.world,), restart=kind))
        self.kinds[name] = kind
        self.log.append(("start", name))

    @precondition(lambda self: not self.down and self.kinds)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.kinds)))
        self.settle()
        self.system.remove_child(f"root/{name}", timeout=1)
        del self.kinds[name]
        self.log.append(("stop", name))

    @precondition(lambda self: not self.down and self.kinds)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.kinds)))
        self.settle()
        address = self.system.address(f"root/{name}")
        if fails:
            address.tell(failing(ValueError(name)))
            self.world.wait_for(Failed, f"root/{name}", self.log.count(("failure", name)) + 1)
        else:
            address.stop(timeout=1)
        self.log.append(("failure" if fails else "stop", name))
        self._model_end(name, fails=fails)

    def _model_end(self, name: str, *, fails: bool) -> None:
        kind = self.kinds[name]
        order = list(self.kinds)
        if kind is Restart.TEMPORARY or (kind is Restart.TRANSIENT and not fails):
            del self.kinds[name]
            return
        self.restarts += 1
        group = order if self.down else self._group(order, name)
        self.log += [("stop", other) for other in reversed(group) if other != name]
        if self.down:
            self.kinds = {}
            return
        for other in group:
            if self.kinds[other] is Restart.TEMPORARY:
                del self.kinds[other]
            else:
                self.log.append(("start", other))

    def _group(self, order: list[str], name: str) -> list[str]:
        if self.strategy is Strategy.ONE_FOR_ONE:
            return [name]
        return order if self.strategy is Strategy.ONE_FOR_ALL else order[order.index(name) :]

    def settle(self) -> None:
        self.world.wait_until(lambda: len(self.world.notes) >= len(self.log))
        self.world.wait_until(
            lambda: {info.state for info in self.system.tree()} <= {"running", "stopped"} or self.down
        )

    @invariant()
    def the_log_is_the_models(self) -> None:
        if hasattr(self, "system"):
            self.settle()
            assert [note[:2] for note in self.world.notes] == self.log

    @invariant()
    def the_tree_is_the_models(self) -> None:
        if not hasattr(self, "system"):
            return
        if self.down:
            self.world.wait_until(lambda: len(self.world.given_up) == 1)
            return
        running = [info.name for info in self.system.tree() if info.state == "running"]
        assert running == ["root", *self.kinds]

    def teardown(self) -> None:
        if hasattr(self, "system"):
            with gevent.Timeout(5):
                self.system.stop(timeout=1)


SupervisorMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
TestSupervisor = SupervisorMachine.TestCase
