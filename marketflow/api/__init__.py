"""The REST API: a Falcon application over a Market, with its errors, its log and its description."""

from marketflow.api.app import create_app
from marketflow.api.settings import ApiSettings

__all__ = ["create_app", "ApiSettings"]
