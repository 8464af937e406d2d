"""An operator learns all mistakes of a template file at once, and a client all mistakes of its parameters."""

import json
from pathlib import Path

import pytest

from service.bootstrap.templates import load_templates
from service.errors import InvalidRequestError, SettingsError
from service.jobs.model import Limits
from service.jobs.templates import Template

SHIPPED = Path(__file__).parents[2] / "jobs.toml"

DESIGN = """
[templates.line-count]
description = "Count the lines of a file on the worker"
command = ["wc", "-l", "{path}"]
timeout = "30s"
max_attempts = 3
retry_exit_codes = [75]
requires_confirmation = true
distinct_confirmer = true
environment = { LANG = "C" }
pass_environment = ["TZ"]
[templates.line-count.parameters.path]
type = "string"
pattern = "^/[A-Za-z0-9._/-]{1,200}$"
sensitive = false
[templates.line-count.limits]
memory = "256MiB"
cpu_seconds = 10
output = "1MiB"
processes = 64
open_files = 256
folder = "32MiB"
folder_files = 1000
"""

ALL_TYPES = """
[templates.all]
description = "One parameter of each type"
command = ["true", "{text}", "{count}", "{flag}", "{color}", "{token}"]
[templates.all.parameters]
text = { type = "string", max_length = 5 }
count = { type = "integer", minimum = -1, maximum = 3, default = 2 }
flag = { type = "boolean", default = false }
color = { type = "enum", values = ["red", "green"], default = "red" }
token = { type = "string", sensitive = true, pattern = "[a-z]+" }
"""


def _load(folder: Path, text: str) -> Template:
    path = folder / "jobs.toml"
    path.write_text(text, "utf-8")
    templates = load_templates(path)
    template = next(iter(templates.values()))
    assert template is not None
    return template


def _problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        _load(folder, text)
    return [problem.partition("jobs.toml: ")[2] for problem in caught.value.problems]


def _refusal(template: Template, **parameters: object) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        template.check(parameters)
    return caught.value.detail


def test_the_documented_template_is_read_as_written(tmp_path: Path) -> None:
    """The example of the configuration reference yields exactly what it says."""
    template = _load(tmp_path, DESIGN)
    assert template.name == "line-count"
    assert template.command == ("wc", "-l", "{path}")
    assert (template.timeout_ms, template.max_attempts, template.retry_exit_codes) == (30_000, 3, (75,))
    assert template.requires_confirmation
    assert template.distinct_confirmer
    assert (template.environment, template.pass_environment) == ({"LANG": "C"}, ("TZ",))
    assert template.limits == Limits(
        memory_bytes=256 * 2**20,
        cpu_seconds=10,
        output_bytes=2**20,
        processes=64,
        open_files=256,
        folder_bytes=32 * 2**20,
        folder_files=1_000,
    )
    assert template.sensitive_names == frozenset()


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    """A template needs only a description and a command: 5 minutes, 3 attempts, every failure retried, no approval."""
    template = _load(tmp_path, '[templates.t]\ndescription = "d"\ncommand = ["true"]\n')
    assert (template.timeout_ms, template.max_attempts, template.retry_exit_codes) == (300_000, 3, None)
    assert not template.requires_confirmation
    assert not template.distinct_confirmer
    assert template.limits == Limits(
        memory_bytes=512 * 2**20,
        cpu_seconds=300,
        output_bytes=8 * 2**20,
        processes=512,
        open_files=1024,
        folder_bytes=2**30,
        folder_files=50_000,
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [("true", (True, False)), ("false", (False, False)), ('"person"', (True, True))],
)
def test_four_eyes_may_need_to_know_people(tmp_path: Path, written: str, read: tuple[bool, bool]) -> None:
    """`distinct_confirmer` is true, false, or names that people must be known."""
    text = DESIGN.replace("distinct_confirmer = true", f"distinct_confirmer = {written}")
    template = _load(tmp_path, text)
    assert (template.distinct_confirmer, template.requires_person) == read


@pytest.mark.parametrize("written", ["1", '"email"', '"true"', "[]", "{ claim = 'email' }"])
def test_another_rule_of_four_eyes_is_a_problem(tmp_path: Path, written: str) -> None:
    """A rule that is not understood never counts as none."""
    text = DESIGN.replace("distinct_confirmer = true", f"distinct_confirmer = {written}")
    (problem,) = _problems(tmp_path, text)
    assert problem == 'templates.line-count.distinct_confirmer: must be true, false or "person"'


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    """One start of the service is enough to learn every mistake, each with its place."""
    problems = _problems(
        tmp_path,
        """
        title = "x"
        [templates.Bad_Name]
        description = 3
        command = ["echo", "{missing}", "{"]
        timeout = "soon"
        max_attempts = 0
        retry_exit_codes = [0]
        distinct_confirmer = true
        requires_confirmatoin = true
        environment = { "1X" = "a", TRACEPARENT = "b" }
        pass_environment = ["AUDITRACE_LEDGER_SECRET"]
        [templates.Bad_Name.parameters.path]
        type = "string"
        pattern = "("
        [templates.Bad_Name.parameters.count]
        type = "integer"
        minimum = 5
        maximum = 9
        default = 3
        [templates.Bad_Name.parameters.flag]
        type = "bool"
        [templates.Bad_Name.parameters.color]
        type = "enum"
        values = []
        pattern = "x"
        [templates.Bad_Name.parameters.token]
        type = "string"
        sensitive = true
        default = "secret"
        [templates.Bad_Name.limits]
        memory = "lots"
        cpu_seconds = true
        disk = 1
        processes = 0
        open_files = 3
        folder = "2KiB"
        folder_files = "many"
        [templates.no-command]
        description = "d"
        """,
    )
    expected = (
        ".title: unknown key",
        "templates.Bad_Name: a name has",
        "templates.Bad_Name.description: Expected `str`",
        "templates.Bad_Name.command: argument 1: {missing} is not a parameter",
        "templates.Bad_Name.command: argument 2: a single {",
        "templates.Bad_Name.timeout: 'soon' is not a duration",
        "templates.Bad_Name.max_attempts: must be from 1 to 100",
        "templates.Bad_Name.retry_exit_codes: exit codes of failures",
        "templates.Bad_Name.distinct_confirmer: has no effect without",
        "templates.Bad_Name.requires_confirmatoin: unknown key; allowed: description, command",
        "templates.Bad_Name.environment: '1X' is not the name",
        "templates.Bad_Name.environment: TRACEPARENT is set for each run",
        "templates.Bad_Name.pass_environment: AUDITRACE_LEDGER_SECRET is set for each run",
        "templates.Bad_Name.parameters.path.pattern: is not a regular expression",
        "templates.Bad_Name.parameters.count.default: must be an integer from 5 to 9",
        "templates.Bad_Name.parameters.flag.type: must be one of string, integer, boolean, enum",
        "templates.Bad_Name.parameters.color.values: must be a list of at least one",
        "templates.Bad_Name.parameters.color.pattern: unknown key for type enum",
        "templates.Bad_Name.parameters.token.default: a sensitive parameter has none",
        "templates.Bad_Name.limits.memory: 'lots' is not a size",
        "templates.Bad_Name.limits.cpu_seconds: Expected `int`, got `bool`",
        "templates.Bad_Name.limits.processes: must be from 1 to 32768, not 0",
        "templates.Bad_Name.limits.open_files: must be from 16 to 1048576, not 3",
        "templates.Bad_Name.limits.folder: must be from 1048576 to 1099511627776, not 2048",
        "templates.Bad_Name.limits.folder_files: Expected `int`, got `str`",
        "templates.Bad_Name.limits.disk: unknown key",
        "templates.no-command.command: is required",
    )
    missing = [text for text in expected if not any(problem.startswith(text) for problem in problems)]
    assert missing == []
    assert len(problems) == len(expected)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("[]", "must name a program"),
        ('["{p}"]', "the program itself cannot be a placeholder"),
        ('["x", "a\\u0000b"]', "argument 1 holds U+0000"),
        ('["x", "a\\u200bb"]', "argument 1 holds U+200B"),
        ('["x", "a\\U000E0041b"]', "argument 1 holds U+E0041"),
        (f'["x", "hmac-sha256:{"a" * 64}"]', "the form of a masked value"),
        ('["x", "{p"]', "a single {"),
        ('["x", "p}"]', "a single }"),
        ('["x", "{p!r}"]', "a single {"),
        ('["x", 3]', "Expected `str`, got `int`"),
    ],
)
def test_commands_that_are_refused(tmp_path: Path, command: str, problem: str) -> None:
    """A client can never choose the program, and a command says without doubt what it stands for."""
    text = f'[templates.t]\ndescription = "d"\ncommand = {command}\n[templates.t.parameters.p]\ntype = "string"\n'
    assert any(problem in found for found in _problems(tmp_path, text))


def test_a_file_that_cannot_be_read_is_a_problem_of_the_settings(tmp_path: Path) -> None:
    """A missing file and a file that is not TOML are reported like any other mistake."""
    with pytest.raises(SettingsError, match="cannot be read"):
        load_templates(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="is not TOML"):
        _load(tmp_path, "[templates")


def test_checked_parameters_are_complete(tmp_path: Path) -> None:
    """A check returns every parameter, defaults included, in the order of the template."""
    template = _load(tmp_path, ALL_TYPES)
    checked = template.check({"token": "abc", "text": "héllo"})
    assert list(checked.items()) == [
        ("text", "héllo"),
        ("count", 2),
        ("flag", False),
        ("color", "red"),
        ("token", "abc"),
    ]
    assert template.sensitive_names == {"token"}


def test_every_wrong_parameter_is_named(tmp_path: Path) -> None:
    """One refusal names all that is unknown, missing or wrong."""
    detail = _refusal(_load(tmp_path, ALL_TYPES), text="too long", count=4, flag="yes", color="blue", nmae=1)
    assert "'nmae' is not a parameter of all" in detail
    assert "text must have at most 5 characters" in detail
    assert "count must be an integer from -1 to 3" in detail
    assert "flag must be true or false" in detail
    assert "color must be one of red, green" in detail
    assert "token is required" in detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", 5),
        ("text", None),
        ("text", ["a"]),
        ("text", "a\nb"),
        ("text", "a\0"),
        ("text", "\x7f"),
        ("text", "\x85"),
        ("text", "\ud800"),
        ("text", "\u2028"),
        ("text", "\u202e"),
        ("text", "a\u200b"),
        ("text", "a\u200d"),
        ("text", "a\ufe0f"),
        ("text", "a\U000e0041"),
        ("text", "-rf"),
        ("count", True),
        ("count", 1.0),
        ("count", "1"),
        ("count", -2),
        ("flag", 1),
        ("color", True),
        ("color", "Red"),
        ("token", "abc\n"),
        ("token", "1abc"),
        ("token", "abc1"),
    ],
)
def test_values_that_are_refused(tmp_path: Path, name: str, value: object) -> None:
    """A value of another type, out of range, not matching as a whole, or that looks like something else is refused."""
    template = _load(tmp_path, ALL_TYPES)
    assert name in _refusal(template, **{"text": "a", "token": "abc", name: value})


def test_what_nobody_sees_is_named_by_its_code_point(tmp_path: Path) -> None:
    """The refusal names parameter and character; of a sensitive value it names no part."""
    template = _load(tmp_path, ALL_TYPES)
    assert "text must not hold U+202E, which" in _refusal(template, text="a\u202e", token="abc")
    refusal = _refusal(template, text="a", token="ab\u200b")
    assert "token must not hold a character that is a control character or cannot be seen" in refusal
    assert "U+" not in refusal


def test_texts_in_any_script_are_taken(tmp_path: Path) -> None:
    """Words of right-to-left scripts, and of those that are written with joiners, are values like others."""
    template = _load(tmp_path, ALL_TYPES.replace("max_length = 5", "max_length = 20"))
    for text in ("שלום", "مرحبا", "می\u200cخواهم", "क्\u200dष", "/srv/א", "日本語", "e\u0301"):
        assert template.check({"text": text, "token": "abc"})["text"] == text


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('description = "a\\u202Eb"', "description: holds U+202E"),
        ('environment = { A = "\\u200B" }', "environment: the value of A holds U+200B"),
        ('parameters.p.description = "\\uFEFF"', "parameters.p.description: holds U+FEFF"),
        ('parameters.p.pattern = "[\\u2066]"', "parameters.p.pattern: holds U+2066"),
        ('parameters.p.default = "a\\u200E"', "parameters.p.default: must not hold U+200E"),
        ('parameters.e = { type = "enum", values = ["a", "a\\u2060"] }', "parameters.e.values: value 1 holds U+2060"),
        ('parameters.e = { type = "enum", values = ["a\\n"] }', "parameters.e.values: value 0 holds U+000A"),
        ('parameters.e = { type = "enum", values = [""], description = "\\u001b" }', "description: holds U+001B"),
    ],
)
def test_no_text_of_a_template_hides_anything(tmp_path: Path, line: str, place: str) -> None:
    """What nobody can see in a template is a mistake of the settings, told once, with its place and code point."""
    text = f'[templates.t]\ncommand = ["x"]\nparameters.p.type = "string"\n{line}\n'
    text += "" if line.startswith("description") else 'description = "d"\n'
    (problem,) = _problems(tmp_path, text)
    assert place in problem


def test_a_script_may_have_lines(tmp_path: Path) -> None:
    """Line breaks and tabs are allowed in commands and descriptions: a plan shows them as escapes."""
    text = '[templates.t]\ndescription = "a\\nb"\ncommand = ["sh", "-c", "a\\n\\tb"]\n'
    assert _load(tmp_path, text).command[2] == "a\n\tb"


def test_a_refusal_does_not_repeat_values(tmp_path: Path) -> None:
    """A secret that was sent wrongly does not get into the refusal, which is recorded."""
    detail = _refusal(_load(tmp_path, ALL_TYPES), text="a", token="SECRET1", count="SECRET2")
    assert "SECRET" not in detail


def test_a_masked_form_is_no_value(tmp_path: Path) -> None:
    """Nobody can send the visible form of a secret to have the secret put in its place."""
    text = '[templates.t]\ndescription = "d"\ncommand = ["true"]\n[templates.t.parameters.p]\ntype = "string"\n'
    assert "masked" in _refusal(_load(tmp_path, text), p=f"x hmac-sha256:{'0' * 64}")


def test_a_described_template_is_json(tmp_path: Path) -> None:
    """The plain structure of a template survives JSON unchanged and states every limit."""
    described = _load(tmp_path, ALL_TYPES).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["limits"] == {
        "memory_bytes": 536_870_912,
        "cpu_seconds": 300,
        "output_bytes": 8_388_608,
        "processes": 512,
        "open_files": 1024,
        "folder_bytes": 1_073_741_824,
        "folder_files": 50_000,
    }


def test_the_shipped_templates_are_valid() -> None:
    """The file in the distribution loads; what destroys needs a second person."""
    templates = load_templates(SHIPPED)
    assert tuple(templates) == ("csv-profile", "delete-old-files", "disk-usage", "line-count", "sha256-files")
    deleting = templates.get("delete-old-files")
    assert deleting is not None
    assert deleting.requires_confirmation
    assert deleting.distinct_confirmer
    for path in ("/", "/tmp", "/tmp/..", "/tmp/a/b", "/tmp/../etc", "/etc", "/tmp/-x/"):
        with pytest.raises(InvalidRequestError):
            deleting.check({"path": path})


def test_a_run_has_the_network_and_folders_only_where_its_template_says_so(tmp_path: Path) -> None:
    """Without these keys a run has no network and none of the worker's folders."""
    plain = _load(tmp_path, '[templates.t]\ndescription = "d"\ncommand = ["true"]\n')
    assert (plain.network, plain.reads, plain.writes) == (False, (), ())
    text = 'network = true\nreads = ["/srv", "/var/log"]\nwrites = ["/var/spool/x"]\n'
    given = _load(tmp_path, f'[templates.t]\ndescription = "d"\ncommand = ["true"]\n{text}')
    assert (given.network, given.reads, given.writes) == (True, ("/srv", "/var/log"), ("/var/spool/x",))


@pytest.mark.parametrize("key", ["reads", "writes"])
@pytest.mark.parametrize("folder", ["/", "srv", "", "/srv/", "/srv/../etc", "/srv//x", "/proc", "/sys/fs", "/dev/shm"])
def test_a_folder_of_a_template_is_one_absolute_path(tmp_path: Path, key: str, folder: str) -> None:
    """A path that could mean another folder than it shows, or all of them, is refused with its place."""
    (problem,) = _problems(tmp_path, f'[templates.t]\ndescription = "d"\ncommand = ["true"]\n{key} = ["{folder}"]\n')
    assert problem.startswith(f"templates.t.{key}: {folder!r} ")
