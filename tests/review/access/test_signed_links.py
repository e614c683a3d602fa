"""Nobody makes up, changes or keeps a link."""

from hypothesis import given
from hypothesis import strategies as st

from medssl.review.access.signed_links import Link, read

KEY, LINK = "k" * 32, Link(3, "labels", 7, 1000)


def test_a_signed_link_reads_back():
    assert read(LINK.token(KEY), KEY, 999.9) == LINK


def test_an_expired_link_is_none():
    assert read(LINK.token(KEY), KEY, 1000.0) is None


def test_another_key_signs_nothing():
    assert read(LINK.token("x" * 32), KEY, 0.0) is None


@given(st.integers(0, 200), st.characters(max_codepoint=127))
def test_any_changed_letter_is_refused(at, letter):
    token = LINK.token(KEY)
    changed = token[: at % len(token)] + letter + token[at % len(token) + 1 :]
    assert changed == token or read(changed, KEY, 0.0) is None


@given(st.text())
def test_no_text_crashes_it(text):
    assert read(text, KEY, 0.0) is None
