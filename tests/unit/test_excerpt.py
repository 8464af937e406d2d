"""The end of a standard error as a text: short, harmless, and without the sensitive values of the job."""

import pytest

from service.execution.excerpt import EXCERPT_BYTES, WINDOW_BYTES, excerpt

SECRET = "hunter2-is-best"


def test_a_short_text_is_shown_whole() -> None:
    """Nothing is cut from what fits, and nothing written is an empty text."""
    assert excerpt(b"cannot open x\n\tgiving up\n", []) == "cannot open x\n\tgiving up\n"
    assert excerpt(b"", [SECRET]) == ""


def test_of_a_long_text_the_end_is_shown() -> None:
    """At most 4 KiB, and no half of a character at the beginning."""
    assert excerpt(b"a" * 5000 + b"\nno\n", []) == "a" * (EXCERPT_BYTES - 4) + "\nno\n"
    assert excerpt("é".encode() * 3000 + b"!", []) == "é" * 2047 + "!"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"a\xff\xfeb", "a\ufffd\ufffdb"),
        (b"\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        (b"a\r\nb\rc", "a\nb\ufffdc"),
        (b"nul\x00 bell\x07 del\x7f", "nul\ufffd bell\ufffd del\ufffd"),
        ("c1\x9b31m".encode(), "c1\ufffd31m"),
        ("\u202egnp.exe\u2066".encode(), "\ufffdgnp.exe\ufffd"),
        ("line\u2028sep".encode(), "line\ufffdsep"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    ],
)
def test_what_controls_a_terminal_is_made_harmless(written: bytes, shown: str) -> None:
    """No byte of a run can colour, move, hide or reorder what a reader sees; line breaks and tabs stay."""
    assert excerpt(written, []) == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (f"token {SECRET} is wrong", "token *** is wrong"),
        (SECRET * 3, "***"),
        (f"{SECRET}-{SECRET}", "***-***"),
        (f"no {SECRET[:-1]}?", f"no {SECRET[:-1]}?"),
        (f"cut off {SECRET[:9]}", "cut off ***"),
        ("hunt", "***"),
        ("hun", "hun"),
    ],
)
def test_a_sensitive_value_is_masked(written: str, shown: str) -> None:
    """The value stands nowhere in the text, nor does a beginning of it at an end that was cut off."""
    assert excerpt(written.encode(), [SECRET]) == shown


def test_values_that_overlap_are_masked_as_one() -> None:
    """No rest of one value is left beside the mask of another, whatever their order."""
    for values in (["abcdef", "defghi"], ["defghi", "abcdef"]):
        assert excerpt(b"<abcdefghi>", values) == "<***>"
    assert excerpt(b"x=aa", ["a"]) == "x=***"
    assert excerpt("é".encode() + b"!", ["é", ""]) == "***!"


@pytest.mark.parametrize("reached", range(1, len(SECRET)))
def test_a_value_at_the_beginning_of_the_excerpt_is_masked(reached: int) -> None:
    """However the cut falls into a value, no part of it is shown."""
    written = b"x" * 100 + SECRET.encode() + b"y" * (EXCERPT_BYTES - reached)
    assert excerpt(written, [SECRET]) == "***" + "y" * (EXCERPT_BYTES - reached)


def test_the_longest_value_is_seen_whole() -> None:
    """The window is long enough for the longest value that a parameter takes, in the longest characters."""
    longest = "😀" * 8192
    written = ("a" * 10 + longest + "b" * (EXCERPT_BYTES - 1)).encode()[-WINDOW_BYTES:]
    assert excerpt(written, [longest]) == "***" + "b" * (EXCERPT_BYTES - 1)
