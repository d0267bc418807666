"""A counter that fails, comes back, and goes on with what waited in its mailbox."""
# ruff: noqa: INP001, T201 - a program by itself, and it prints

from actors.runtime import ActorSystem, ChildSpec, GeventActor, MailboxSpec, SupervisorSpec


class Counter(GeventActor):
    mailbox = MailboxSpec(bound=8)  # a ninth message holds its sender until there is room

    def __init__(self, first: int) -> None:
        super().__init__()
        self.total = first

    def on_receive(self, message: int) -> None:
        self.total += 100 // message  # a zero fails this actor: its supervisor makes a new one


def main() -> None:
    system = ActorSystem(SupervisorSpec("root", children=[ChildSpec("counter", Counter, args=(1000,))]))
    system.start(timeout=5)
    counter = system.address("root/counter")  # stays valid whatever happens to the actor
    for message in (10, 0, 50, 100):
        counter.tell(message)
    counter.ask(1, control=False, timeout=5)  # waits for its turn behind what was told
    print(counter.proxy().total.get(timeout=5), system.dead_letters.last[0].message, system.tree()[1].restarts)
    print(system.stop(timeout=5).late)


if __name__ == "__main__":
    main()
