"""What the runtime takes from inside Pykka: if Pykka changes it, these tests say where."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pykka
import pytest
from pykka import _actor, _proxy, _ref, messages

import actors.runtime
from actors.runtime import Address, GeventActor, GeventFuture
from actors.runtime.address import AddressProxy
from actors.runtime.mailbox import Mailbox

PRIVATE_OVERRIDES = {"_create_actor_inbox", "_create_future", "_start_actor_loop"}


class Echo(GeventActor):
    def on_receive(self, message: Any) -> Any:
        return message


def test_the_hooks_are_what_pykka_asks_its_subclasses_for() -> None:
    assert pykka.Actor.__abstractmethods__ == PRIVATE_OVERRIDES
    assert not GeventActor.__abstractmethods__


def test_pykka_makes_the_inbox_on_the_instance_and_sets_the_ref() -> None:
    source = inspect.getsource(_actor.Actor.__init__)
    assert "self._create_actor_inbox()" in source
    assert "self._actor_ref = " in source
    assert "self._actor_ref" in inspect.getsource(_actor.Actor.actor_ref.fget)  # type: ignore[attr-defined]  # a property


def test_an_actor_has_the_inbox_and_the_ref_of_its_cell() -> None:
    actor = Echo()
    assert isinstance(actor.actor_inbox, Mailbox)
    assert isinstance(actor.actor_ref, Address)
    assert actor._actor_ref is actor.actor_ref
    assert actor.actor_ref.actor_class is Echo


def test_start_ends_in_the_loop_and_returns_the_ref() -> None:
    ref = Echo.start()
    assert isinstance(ref, Address)
    assert isinstance(ref.ask("x", block=False), GeventFuture)
    assert ref.stop(timeout=1)


def test_a_stop_is_the_message_that_the_loop_knows() -> None:
    assert "_ActorStop" in inspect.getsource(_ref.ActorRef.stop)
    assert messages._ActorStop() == ()
    ref = Echo.start()
    ref.ask(messages._ActorStop(), timeout=1)
    assert not ref.is_alive()


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (messages.ProxyCall, ("attr_path", "args", "kwargs")),
        (messages.ProxyGetAttr, ("attr_path",)),
        (messages.ProxySetAttr, ("attr_path", "value")),
    ],
)
def test_proxy_messages_have_the_fields_that_are_dispatched(message: Any, fields: tuple[str, ...]) -> None:
    assert message._fields == fields


def test_pykka_dispatches_no_message_that_the_runtime_does_not_know() -> None:
    tree = ast.parse(inspect.getsource(_actor.Actor._handle_receive).lstrip())
    known = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr[0].isupper()}
    assert known | {"_ActorStop"} == {"_ActorStop", "ProxyCall", "ProxyGetAttr", "ProxySetAttr"}


def test_refs_and_proxies_have_no_public_part_that_addresses_lack() -> None:
    ref = Echo.start()
    public = {name for name in vars(_ref.ActorRef) if not name.startswith("_")}
    assert public == {"is_alive", "tell", "ask", "stop", "proxy"}
    for attribute in inspect.get_annotations(_ref.ActorRef):
        if attribute not in {"actor_inbox", "actor_stopped"}:
            assert hasattr(ref, attribute)
    assert set(inspect.get_annotations(_proxy.ActorProxy)) == {
        "actor_ref", "_actor", "_attr_path", "_known_attrs", "_actor_proxies", "_callable_proxies"
    }  # fmt: skip
    proxy = ref.proxy()
    assert isinstance(proxy, AddressProxy)
    assert "actor_ref" in dir(proxy)
    assert hash(proxy) == hash(ref.proxy())
    ref.stop(timeout=1)


def test_futures_combine_through_the_hook_that_they_honour() -> None:
    for combine in (pykka.Future.map, pykka.Future.filter, pykka.Future.join, pykka.Future.reduce):
        assert "set_get_hook" in inspect.getsource(combine)
    assert "_get_hook_result" in inspect.getsource(pykka.Future.get)


def test_all_that_is_private_in_pykka_is_used_in_one_module() -> None:
    names = PRIVATE_OVERRIDES | {"_ActorStop", "_actor_ref", "_handle_receive", "_actor_loop"}
    package = Path(inspect.getfile(actors.runtime)).parent
    users = set()
    for path in package.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            used = getattr(node, "attr", getattr(node, "name", getattr(node, "id", None)))
            if used in names or (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pykka._")):
                users.add(path.name)
    assert users == {"pykka_hooks.py"}
