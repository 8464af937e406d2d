"""What a reader of a plan cannot see is refused or escaped, for any text."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.texts import is_blank, is_unprintable, unfit_character, visible, visible_command

HOSTILE = "\u200b\u200c\u200d\u200e\u202e\u2066\ufe0f\ufeff\u00a0\u3164\U000e0041אبمی\\u{}aZ0 -\n\t'"
texts = st.text() | st.text(alphabet=HOSTILE)

# Characters of the category Cf that are drawn: signs of Arabic, Syriac and Kaithi that stand before a number.
SIGNS = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
JOINERS = {0x200C, 0x200D}


def test_every_format_character_is_refused() -> None:
    """Controls, separators and format characters of Unicode are unfit, except for signs that are drawn."""
    for code_point in range(sys.maxunicode + 1):
        is_drawn = code_point in SIGNS
        if unicodedata.category(chr(code_point)) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and not is_drawn:
            assert unfit_character(chr(code_point)) == f"U+{code_point:04X}"


def test_letters_digits_and_marks_are_fit() -> None:
    """No letter, digit, punctuation or symbol is refused; of the marks and letters only those that are not drawn."""
    unfit = {
        code_point
        for code_point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code_point))[0] in "LNMPS" and unfit_character(chr(code_point)) is not None
    }
    fillers = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, 0xFFA0}
    assert unfit <= fillers | {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}


@given(texts)
def test_a_fit_text_holds_nothing_unseen(text: str) -> None:
    """What passes has no character that is not drawn, except for joiners behind a letter of a script that has them."""
    if unfit_character(text) is not None:
        return
    for before, character in zip(" " + text, text, strict=False):
        assert not is_unprintable(character)
        if ord(character) in JOINERS:
            assert "\u0600" <= before <= "\uabff"
        else:
            assert unicodedata.category(character) != "Cf" or ord(character) in SIGNS


@given(texts)
def test_line_breaks_are_the_only_difference_of_scripts(text: str) -> None:
    """A script may hold line feeds and tabs, and nothing else that a value must not."""
    plain = text.replace("\n", "").replace("\t", "")
    if not any(joiner in text for joiner in "\u200c\u200d"):
        assert unfit_character(text, line_breaks=True) == unfit_character(plain)


@given(texts)
def test_what_is_shown_can_be_seen(text: str) -> None:
    """No character of the result is unseen, private or a blank other than the space, and the order is unambiguous."""
    shown = visible(text)
    for character in shown:
        assert unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp", "Co"}
        assert unicodedata.category(character) != "Cf" or ord(character) in SIGNS
        assert unicodedata.category(character) != "Zs" or character == " "
    directions = {unicodedata.bidirectional(character) for character in shown}
    assert not (directions & {"R", "AL"} and directions & {"L", "EN"})


@given(texts)
def test_what_is_shown_tells_the_text(text: str) -> None:
    """The escapes can be undone, so two different texts never look alike; plain ASCII is shown as it is."""
    shown = visible(text)
    assert re.sub(r"\\u\{([0-9a-f]+)\}", lambda found: chr(int(found[1], 16)), shown) == text
    if re.fullmatch(r"[ -\[\]-~]*", text):
        assert shown == text


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b\u2060", "\u3164", "\u2800", "\u00a0\ufe0f", "\U000e0041"])
def test_a_text_that_shows_nothing_is_blank(text: str) -> None:
    """A reason of blanks and unseen characters is none; one visible character makes it a text."""
    assert is_blank(text)
    for character in ".א😀":
        assert not is_blank(text + character + text)


@given(st.lists(st.text(alphabet=HOSTILE, min_size=1), min_size=1))
def test_a_command_is_one_line(argv: list[str]) -> None:
    """Whatever the arguments hold, the command is shown in one line, in one direction."""
    assert visible_command(argv).splitlines() == [visible_command(argv)]
