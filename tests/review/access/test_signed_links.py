"""A link cannot be forged, changed or used after it expires."""

from hypothesis import given
from hypothesis import strategies as st

from medssl.review.access.signed_links import Link, parse_token

KEY, LINK = "k" * 32, Link(3, "labels", 7, 1000, "0123456789abcdef")


def test_a_signed_link_reads_back():
    assert parse_token(LINK.sign(KEY), KEY, 999.9) == LINK


def test_an_expired_link_is_none():
    assert parse_token(LINK.sign(KEY), KEY, 1000.0) is None


def test_another_key_signs_nothing():
    assert parse_token(LINK.sign("x" * 32), KEY, 0.0) is None


@given(st.integers(0, 200), st.characters(max_codepoint=127))
def test_any_changed_character_is_rejected(position, letter):
    token = LINK.sign(KEY)
    changed = token[: position % len(token)] + letter + token[position % len(token) + 1 :]
    assert changed == token or parse_token(changed, KEY, 0.0) is None


@given(st.text())
def test_no_text_crashes_it(text):
    assert parse_token(text, KEY, 0.0) is None
