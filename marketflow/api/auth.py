"""Who may switch the mode."""

import hmac
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

import falcon

from marketflow.api.errors import FORBIDDEN, UNAUTHORIZED, Refused


class Guard:
    """Lets pass whoever holds the token or, where none is configured, clients on this machine.

    Only the address of the socket's peer counts: Forwarded, X-Forwarded-For and their kin can be set by anyone.
    A peer on a unix socket has no address, and is usually a proxy that speaks for others: it needs a token.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def check(self, req: falcon.Request) -> None:
        """Return when the client may go on. Raises Refused (401 or 403)."""
        if self._token:
            self._check_token(req)
        elif not _is_loopback(req.env.get("REMOTE_ADDR", "")):
            raise Refused(FORBIDDEN, "No admin_token is configured, so that only clients on this machine may do that")
        elif not _is_own_page(req):
            raise Refused(FORBIDDEN, "Pages of other origins may not do that while no admin_token is configured")

    def _check_token(self, req: falcon.Request) -> None:
        scheme, _, given = req.env.get("HTTP_AUTHORIZATION", "").partition(" ")
        # WSGI hands header bytes over as Latin-1, whatever they are.
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() != "bearer" or not right:
            challenge = "Bearer" if not given else 'Bearer error="invalid_token"'
            raise Refused(
                UNAUTHORIZED, "Send the header Authorization: Bearer <admin_token>", {"WWW-Authenticate": challenge}
            )


def _is_loopback(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def _is_own_page(req: falcon.Request) -> bool:
    """Tell whether the request comes from no browser, or from a page that this machine's own API served.

    A foreign page in a browser on this machine comes over loopback too; browsers name its origin on every POST. The
    host must be a loopback one, because a foreign name can be made to resolve to 127.0.0.1.
    """
    origin = req.env.get("HTTP_ORIGIN")
    if origin is None:
        return True
    try:
        parts = urlsplit(origin)
        hostname = parts.hostname or ""
    except ValueError:
        return False
    return parts.netloc == req.env.get("HTTP_HOST") and (hostname == "localhost" or _is_loopback(hostname))
