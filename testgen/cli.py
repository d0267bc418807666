"""The command `testgen`: flags made of the settings, one line per listening address, exit status."""

import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import gevent
import msgspec
from gevent.event import Event

from testgen.server import Exchange
from testgen.settings import Duration, Settings, SettingsError, flag_name, load

_PARENT_CHECK = 0.25  # seconds
_METAVARS = {str: "FILE", float: "NUMBER", int: "N", Duration: "DURATION"}


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit: 0 after a signal, 2 for wrong arguments, 1 for anything else."""
    try:
        sys.exit(_command().main(arguments, prog_name="testgen", standalone_mode=False))
    except click.ClickException as error:
        _fail(2, error.format_message())
    except SettingsError as error:
        _fail(2, str(error))
    except OSError as error:
        _fail(1, str(error))


def run(settings: Settings, parent: int | None) -> None:
    """Serve until SIGINT, SIGTERM or the end of process `parent`. Raises OSError when an address is taken."""
    stop = Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, stop.set)
    exchanges = [Exchange(at, settings) for at in settings.exchanges]
    for exchange in exchanges:
        try:
            exchange.listen()
        except OSError as error:
            host, port = exchange.address
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(f"cannot listen on {host}:{port}: {reason}") from error
        click.echo(f"listening {exchange.name} {_join(*exchange.address)}")
    while not stop.wait(_PARENT_CHECK):
        if parent is not None and os.getppid() != parent:
            break
    for exchange in exchanges:
        exchange.stop()


def _command() -> click.Command:
    options = [click.Option([name], **kind) for name, kind in _options(Settings)]
    options.append(click.Option(["--profile"], type=click.Path(path_type=Path), help="TOML file of settings."))
    options.append(
        click.Option(
            ["--exit-with-parent"],
            is_flag=False,
            flag_value=os.getppid(),
            type=int,
            metavar="[PID]",
            help="Stop when the parent process ends, or is not PID.",
        )
    )
    return click.Command(
        "testgen",
        params=list(options),
        callback=_run,
        help="Imitate exchanges: send ticks as lines of JSON to every client of each listening address.",
        epilog="A DURATION is an integer and ms, s, m, h or d. A profile has the same settings, as TOML.",
    )


def _options(group: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for field in msgspec.structs.fields(group):
        kind, *notes = get_args(field.type) or (field.type,)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from _options(kind, f"{field.name}.")
            continue
        text = next((note.description for note in notes if getattr(note, "description", None)), None)
        if text is None:
            continue  # a table, which only a profile can hold
        key = f"{path}{field.name}"
        default = field.default if isinstance(field.default, int | float) else 0
        unit = "s" if kind is Duration else ""
        shown = f"{text}  [{default:g}{unit}]" if default else text
        yield (
            flag_name(key),
            {
                "is_flag": kind is bool,
                "multiple": key == "listen",
                "default": None,
                "metavar": None if kind is bool else _METAVARS.get(kind, "TEXT"),
                "help": shown,
                "callback": lambda context, _param, value, key=key: _keep(context, key, value),
                "expose_value": False,
            },
        )


def _keep(context: click.Context, key: str, value: Any) -> None:
    if value not in (None, ()):
        flags = context.ensure_object(dict)
        flags[key] = value.split(",") if key == "symbols" else value


@click.pass_context
def _run(context: click.Context, profile: Path | None, exit_with_parent: int | None) -> None:
    settings = load(profile, context.ensure_object(dict))
    if not settings.seed:
        settings = msgspec.structs.replace(settings, seed=secrets.randbelow(2**32) + 1)
    run(settings, exit_with_parent)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _fail(status: int, message: str) -> None:
    click.echo(f"testgen: {' '.join(message.split())}", err=True)
    sys.exit(status)
