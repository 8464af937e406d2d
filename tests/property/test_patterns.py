"""A pattern of a template means in RE2 and in its schema what it meant in Python, or it is refused."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from service.jobs.patterns import is_match, portable_pattern

LITERALS = ["a", "B", "k", "s", "0", "_", "-", " ", "/", "é", "😀", "}", "]", ",", ":"]
ATOMS = [*LITERALS, ".", "^", "$", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", r"\b", r"\A", r"\Z", r"\.", r"\-", r"\é"]
ATOMS += [r"\x61", r"\x4B", r"\u00e9", r"\U0001f600", r"\t", r"\\", "{", "{}", "{a}"]
ITEMS = ["a", "b-z", "A-Z", "0-9", "!-~", " -/", "é", "-", "]", "^", "[", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S"]
ITEMS += [r"\]", r"\^", r"\\", r"\-", r"\x61", r"\u00e9-\u00ff", r"\U0001f600-\U0001f602", "&&", "||", "[:alpha:]"]
TIMES = ["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "+?", "??", "{1,2}?"]
TEXTS = st.text(st.sampled_from("aAbBkKsS0_- /é😀}]{,:.^$[\\~\u212a\u017f"), max_size=6)

sets = st.builds(
    "[{}{}]".format, st.sampled_from(["", "^"]), st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4).map("".join)
)
atoms = st.sampled_from(ATOMS) | sets
patterns = st.recursive(
    atoms,
    lambda inner: (
        st.builds("{}{}".format, inner, st.sampled_from(TIMES))
        | st.builds("({})".format, inner)
        | st.builds("(?:{}|{})".format, inner, inner)
        | st.builds("(?P<x{2}>{0}{1})".format, inner, inner, st.integers(0, 99))
        | st.builds("{}{}".format, inner, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=1500, deadline=None)
@given(
    flags=st.sampled_from(["", "", "(?i)", "(?s)", "(?im)"]),
    pattern=patterns,
    texts=st.lists(TEXTS, min_size=1, max_size=8),
)
def test_a_pattern_means_the_same_or_is_refused(flags: str, pattern: str, texts: list[str]) -> None:
    """For texts that a value can be, among them letters that fold to ASCII in Unicode only."""
    whole = flags + pattern
    try:
        translated = portable_pattern(whole)
    except ValueError:
        return
    for text in texts:
        expected = re.fullmatch(whole, text, re.ASCII) is not None
        assert is_match(whole, text) == expected
        if r"\b" not in translated:
            assert (re.search(translated, text) is not None) == expected
