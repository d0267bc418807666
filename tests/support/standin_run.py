"""`marketflow run`, with the stand-in node in its workers."""

import sys

import click

from marketflow.config import load_settings
from marketflow.errors import MarketFlowError
from marketflow.server.parent import run

if __name__ == "__main__":
    try:
        run(load_settings(), "tests.support.standin_node:build")
    except MarketFlowError as error:
        click.echo(f"marketflow: {error}", err=True)
        sys.exit(1)
