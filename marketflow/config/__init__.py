"""The configuration of MarketFlow: `load_settings` reads it, `Settings` holds it."""

from marketflow.config.model import Exchange, Settings
from marketflow.config.sources import load_settings

__all__ = ["Settings", "Exchange", "load_settings"]
