"""The command `marketflow`: its arguments, and how each ends."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from marketflow import __version__
from marketflow.config import Settings, load_settings
from marketflow.errors import ConfigurationError, MarketFlowError

_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file.  [$MARKETFLOW_CONFIG, marketflow.toml]",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 after a clean stop, 2 for wrong arguments or configuration, 1 for anything else."""
    try:
        sys.exit(_command.main(arguments, prog_name="marketflow", standalone_mode=False))
    except click.ClickException as error:
        _fail(2, error.format_message())
    except ConfigurationError as error:
        _fail(2, str(error))
    except MarketFlowError as error:
        _fail(1, str(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(1)


def _fail(status: int, message: str) -> None:
    click.echo(f"marketflow: {' '.join(message.split())}", err=True)
    sys.exit(status)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def _command() -> None:
    """Real-time market data: ticks over TCP in, exact prices over REST out."""


@_command.command("run")
@_config
@click.option("--host", metavar="HOST", help="Address to listen on (server.host).")
@click.option("--port", metavar="N", help="TCP port to listen on (server.port).")
@click.option("--mode", metavar="live|test", help="Mode to start in (mode.initial).")
@click.option("--workers", metavar="N", help="Number of gunicorn workers (server.workers).")
def _run(config: Path | None, host: str | None, port: str | None, mode: str | None, workers: str | None) -> None:
    """Run the whole system until SIGINT or SIGTERM."""
    flags = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "workers"): workers,
        ("mode", "initial"): mode,
    }
    settings = _load(config, flags)
    from marketflow.server.parent import run  # noqa: PLC0415 - --help and errors need none of it

    run(settings)


@_command.command("archive")
@_config
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Where the archives go.")
def _archive(config: Path | None, output: Path) -> None:
    """Move rows past the retention to compressed CSV files in DIR, and drop them."""
    settings = _load(config, {})
    from marketflow.server.archive import run  # noqa: PLC0415 - as above

    report = run(settings, output)
    click.echo(f"{report.rows} rows archived: {len(report.files)} files with {report.bytes} bytes in {output}")


def _load(config: Path | None, flags: dict[tuple[str, str], str | None]) -> Settings:
    overrides: dict[str, dict[str, Any]] = {}
    for (section, key), value in flags.items():
        if value is not None:
            overrides.setdefault(section, {})[key] = value
    return load_settings(config, overrides)
