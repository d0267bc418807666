"""What the Redis adapter writes comes back as it was: messages between nodes and the fields of hashes."""

from hypothesis import example, given
from hypothesis import strategies as st

from marketflow.adapters.redis import keys, wire
from marketflow.domain.mode import MODES, Mode
from marketflow.domain.view import Flush, Latest

names = st.text("ABCXYZ0189:-._é", min_size=1, max_size=12)
times = st.integers(0, 2**53)
prices = st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False)
flushes = st.builds(
    Flush,
    st.dictionaries(names, st.dictionaries(names, st.builds(Latest, prices, times))),
    st.dictionaries(names, st.dictionaries(names, st.dictionaries(times, st.binary(min_size=30, max_size=30)))),
)


@given(st.sampled_from(MODES), flushes)
def test_a_message_tells_the_flush(mode: Mode, flush: Flush) -> None:
    assert wire.decode(wire.encode(mode, flush)) == (mode, flush)


@given(st.binary())
@example(b"\x93\xa4\x00\x00\x00\x80")  # text that is not UTF-8
def test_a_message_of_others_tells_nothing_and_raises_nothing(message: bytes) -> None:
    assert wire.decode(message) is None


@given(names, times)
def test_a_field_is_split_at_its_last_colon(symbol: str, number: int) -> None:
    assert keys.split_field(f"{symbol}:{number}".encode()) == (symbol, number)
