"""What a node tells the others of a flush: MessagePack, read only by the same version of MarketFlow or not at all."""

import msgspec

from marketflow.domain.mode import Mode
from marketflow.domain.view import Flush, Latest

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[Mode, dict[str, dict[str, Latest]], dict[str, dict[str, dict[int, bytes]]]]
).decode


def encode(mode: Mode, flush: Flush) -> bytes:
    """Return the message that tells a flush."""
    return _encode((mode, flush.latest, flush.slices))


def decode(message: bytes) -> tuple[Mode, Flush] | None:
    """Return what a message tells; None for one that only says that something was written, or that is not ours."""
    if not message:
        return None
    try:
        mode, latest, slices = _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return mode, Flush(latest, slices)
