"""The audit explorer in a real browser against the real service: what an auditor sees, by keyboard alone."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from service.jobs.texts import visible
from service.roles import AUDITOR, VIEWER
from tests.browser.browser import Browser, require_chromium
from tests.support.service import Service

TAB, ENTER, ESCAPE, DOWN = ("Tab", 9), ("Enter", 13), ("Escape", 27), ("ArrowDown", 40)
HOSTILE = "<img src=x onerror=document.title='broken'>"
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")

SETTLED = "!document.getElementById('records').hasAttribute('aria-busy')"
ROWS = "document.querySelectorAll('#rows tr').length"
DETAIL = "document.getElementById('detail-content').innerText"
PROBLEM = "document.getElementById('problem').textContent"
OTHERS = "(document.querySelector('#others:not([hidden]) #others-text')?.textContent ?? '')"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, with a trace backend to link to."""
    require_chromium()
    settings = {"AUDITRACE_TRACE_URL_TEMPLATE": "http://localhost:16686/trace/{trace_id}"}
    with Service(tmp_path_factory.mktemp("service"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def story(service: Service) -> dict[str, Any]:
    """A job that succeeded, and an attempt that was refused for a template of a hostile name."""
    client = service.client()
    job_id = client.run("greet", name="Zoë")
    job = client.until(job_id, "succeeded")
    client.post("/v1/jobs", {"template": HOSTILE, "parameters": {}}, expect=400, headers={"User-Agent": HOSTILE})
    return job


@pytest.fixture
def page(service: Service, tmp_path: Path) -> Iterator[Browser]:
    """A browser with the page open, nobody signed in."""
    with Browser(require_chromium(), tmp_path) as browser:
        browser.show()
        browser.open(f"{service.url}/")
        yield browser


def _sign_in(page: Browser, key: str) -> None:
    page.evaluate("document.getElementById('key').focus()")
    page.type(key)
    page.press(*ENTER)
    page.wait("!document.getElementById('signed-in').hidden || !document.getElementById('problem').hidden", "an answer")
    page.wait(SETTLED, "the records")


def _go(page: Browser, fragment: str) -> None:
    page.evaluate(f"location.hash = {fragment!r}")


def test_an_auditor_reads_the_trail_by_keyboard(service: Service, story: dict[str, Any], page: Browser) -> None:
    """From the key to a record and back without a pointer: Tab, arrows, Enter, Escape; the focus is never lost."""
    page.press(*TAB)
    assert page.evaluate("document.activeElement.id") == "skip"
    page.press(*TAB)
    assert page.evaluate("document.activeElement.id") == "key"
    page.type(service.key("alma", AUDITOR))
    page.press(*ENTER)
    page.wait(f"{ROWS} > 5", "the records")
    assert not page.evaluate("document.getElementById('sign-in').checkVisibility()")
    page.press(*DOWN)
    page.press(*DOWN)
    opened = page.evaluate("document.activeElement.closest('tr').dataset.record")
    page.press(*ENTER)
    page.wait("document.activeElement.id === 'detail'", "the record")
    assert opened in page.evaluate(DETAIL)
    assert "hash fits the body" in page.evaluate(DETAIL)
    page.press(*ESCAPE)
    page.wait("document.getElementById('detail').hidden", "the list")
    assert page.evaluate("document.activeElement.closest('tr').dataset.record") == opened


def test_links_lead_to_a_record_a_trace_and_a_job(service: Service, story: dict[str, Any], page: Browser) -> None:
    """A link with a record id, a trace id or a job id shows just that, to whoever signs in on it."""
    client = service.client()
    trail = client.trail(story["id"])
    _go(page, f"record={trail[0]['record_id']}")
    _sign_in(page, service.admin())
    page.wait("!document.getElementById('detail').hidden", "the record")
    assert page.evaluate("document.getElementById('detail-title').textContent") == "job.create"
    assert story["id"] in page.evaluate(DETAIL)
    _go(page, f"job_id={story['id']}")
    page.wait(f"{SETTLED} && {ROWS} === {len(trail)}", "the story of the job")
    _go(page, f"trace_id={trail[0]['trace_id']}")
    page.wait(f"{SETTLED} && document.getElementById('records-title').textContent.includes('match')", "the trace")
    links = page.evaluate("[...document.querySelectorAll('#rows a')].map((each) => each.href)")
    assert set(links) == {f"http://localhost:16686/trace/{trail[0]['trace_id']}"}


def test_a_link_from_a_span_shows_exactly_its_records(service: Service, story: dict[str, Any], page: Browser) -> None:
    """What a trace backend knows of a span, the text of an array of record ids, leads to the records of that span."""
    trail = service.client().trail(story["id"])
    spans = Counter(record["span_id"] for record in trail)
    span_id, count = spans.most_common(1)[0]
    assert count < len(trail)
    first = next(record["record_id"] for record in trail if record["span_id"] == span_id)
    _go(page, f"span_of={quote(json.dumps([first, 'another']))}")
    _sign_in(page, service.admin())
    page.wait(
        f"{SETTLED} && {ROWS} === {count} && !document.getElementById('detail').hidden", "the records of the span"
    )
    shown = page.evaluate("[...document.querySelectorAll('#rows tr')].map((each) => each.dataset.record)")
    assert set(shown) == {record["record_id"] for record in trail if record["span_id"] == span_id}
    assert first in page.evaluate(DETAIL)
    page.evaluate("document.getElementById('again').click()")
    _go(page, f"span_of={quote(json.dumps(['01a21645-0000-7000-8000-000000000000']))}")
    page.wait(f"{SETTLED} && !document.getElementById('problem').hidden", "to be told that there is no such record")
    assert page.evaluate(ROWS) == 0


def test_who_asked_stands_before_the_worker(service: Service, story: dict[str, Any], page: Browser) -> None:
    """What a worker did for somebody shows that person first, and is found by the name of that person."""
    _go(page, f"initiator_id={story['created_by']}")
    _sign_in(page, service.admin())
    shown = page.evaluate("[...document.querySelectorAll('#rows tr')].map((each) => each.cells[2].innerText)")
    assert shown
    assert all(each.startswith(f"{story['created_by']} by ") for each in shown), shown


def test_the_trail_about_itself_is_shown_when_it_is_asked_for(
    service: Service, story: dict[str, Any], page: Browser
) -> None:
    """Reads, checkpoints and streams are left out, which the page says; a switch shows them, and the URL has it."""
    events = "[...document.querySelectorAll('#rows tr')].map((each) => each.cells[1].innerText)"
    # A refused read is no noise.
    good = "#rows tr:has(td:nth-child(5) .good)"
    allowed = f"[...document.querySelectorAll('{good}')].map((each) => each.cells[1].innerText)"
    own = {"audit.read", "audit.checkpoint", "audit.stream.open", "audit.stream.close"}
    status = "document.getElementById('status').innerText"
    _sign_in(page, service.admin())
    page.evaluate("document.getElementById('again').click()")
    page.wait(f"{SETTLED} && {status}.includes('are left out')", "the first list")
    assert own.isdisjoint(page.evaluate(allowed))
    page.evaluate("document.querySelector('[name=include_trail]').click()")
    page.wait(f"{SETTLED} && {events}.includes('audit.stream.open')", "the trail about itself")
    assert "left out" not in page.evaluate(status)
    assert page.evaluate("location.hash") == "#include_trail=true"
    _go(page, "event_name=audit.stream.open")
    page.wait(f"{SETTLED} && document.getElementById('records-title').textContent.includes('match')", "one event")
    assert set(page.evaluate(events)) == {"audit.stream.open"}


def test_times_are_passed_on_as_they_were_typed(service: Service, story: dict[str, Any], page: Browser) -> None:
    """A day or a duration ago filters as in the API; what is no time is answered with what to write, and no record."""
    count = len(service.client().trail(story["id"]))
    _sign_in(page, service.admin())
    _go(page, f"job_id={story['id']}&since=-2h")
    page.wait(f"{SETTLED} && {ROWS} === {count}", "the records of the last hours")
    _go(page, f"job_id={story['id']}&until=2026-01-01")
    page.wait(f"{SETTLED} && {ROWS} === 0", "nothing of so long ago")
    _go(page, f"job_id={story['id']}")
    page.wait(f"{SETTLED} && {ROWS} === {count}", "the records of the job")
    _go(page, f"job_id={story['id']}&since=yesterday")
    told = "document.getElementById('problem').textContent"
    page.wait(f"{told}.includes('write 2026-11-30 (UTC)')", "what to write")
    assert page.evaluate("document.getElementById('table').hidden")
    assert page.evaluate("document.forms['filters'].elements['since'].value") == "yesterday"


def test_the_list_is_what_the_link_asks_for(service: Service, story: dict[str, Any], page: Browser) -> None:
    """What the form cannot hold filters as in the API, is said above the list, and stays until it is dropped."""
    client = service.client()
    client.post(f"/v1/jobs/{story['id']}/retry", expect=409)
    trail = client.trail(story["id"])
    bad = [record["record_id"] for record in trail if record["attributes"]["auditrace.result"] == "rejected"]
    assert 0 < len(bad) < len(trail)
    shown = "[...document.querySelectorAll('#rows tr')].map((each) => each.dataset.record)"
    _go(page, f"job_id={story['id']}&not_result=success&not_result=noop&order=asc&limit=1000")
    _sign_in(page, service.admin())
    page.wait(f"{SETTLED} && {ROWS} === {len(bad)}", "what did not succeed")
    assert page.evaluate(OTHERS) == "Also from the link: not_result=success, not_result=noop, order=asc, limit=1000"
    assert page.evaluate("document.getElementById('records-title').textContent") == "Records that match, oldest first"
    _go(page, f"job_id={story['id']}&result=denied&result=rejected")
    page.wait(f"{SETTLED} && {OTHERS} === 'Also from the link: result=rejected'", "the second value")
    assert page.evaluate(shown) == bad
    page.evaluate("document.querySelector('#rows button').click()")
    page.wait("!document.getElementById('detail').hidden", "the record")
    assert page.evaluate("location.hash").endswith(f"&result=denied&result=rejected&record={bad[0]}")
    page.press(*ESCAPE)
    page.wait("document.getElementById('detail').hidden", "the list")
    page.evaluate("document.getElementById('filters').requestSubmit()")
    page.wait(f"{SETTLED} && location.hash.endsWith('&result=rejected')", "the link of the form")
    assert page.evaluate(shown) == bad
    page.evaluate("document.getElementById('drop').click()")
    page.wait(f"{SETTLED} && {ROWS} === 0 && document.getElementById('others').hidden", "the first value alone")
    assert "rejected" not in page.evaluate("location.hash")
    assert page.evaluate("document.activeElement.id") == "records"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("stauts=denied", "stauts"),
        ("result=refused", "result=refused"),
        ("event_name=job.*&include_trail=no", "include_trail=no"),
        ("trace_id=", "trace_id="),
        ("since=-1h&since=-2h", "since"),
    ],
)
def test_a_link_that_cannot_be_followed_shows_no_records(
    service: Service, story: dict[str, Any], page: Browser, asked: str, told: str
) -> None:
    """A wrong name or value in the link is answered with what is wrong, and the rows of before are gone."""
    _sign_in(page, service.admin())
    _go(page, f"job_id={story['id']}")
    page.wait(f"{SETTLED} && {ROWS} > 0 && location.hash.includes('job_id')", "the records of the job")
    _go(page, asked)
    page.wait(f"{SETTLED} && {PROBLEM}.includes({told!r}) && {PROBLEM}.includes('status 400')", "what is wrong")
    assert page.evaluate(ROWS) == 0
    assert page.evaluate("document.getElementById('table').hidden")
    assert page.evaluate(OTHERS) == "Also from the link: " + asked.rpartition("&")[2]
    page.evaluate("document.querySelector('#filters [type=reset]').click()")
    page.wait(f"{SETTLED} && {ROWS} > 0 && location.hash === ''", "all records")
    assert page.evaluate("document.getElementById('others').hidden && document.getElementById('problem').hidden")


def test_texts_of_strangers_stay_texts(service: Service, story: dict[str, Any], page: Browser) -> None:
    """Markup in what a client sent is shown as it was sent: nothing of it is built, loaded or run."""
    _sign_in(page, service.admin())
    _go(page, "event_name=job.create&result=rejected")
    page.wait(f"{SETTLED} && {ROWS} === 1", "the refused attempt")
    page.evaluate("document.querySelector('#rows button').click()")
    page.wait("!document.getElementById('detail').hidden", "the record")
    assert HOSTILE in page.evaluate(DETAIL)
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.title") == "job.create · auditrace explorer"


def test_a_plan_and_a_reason_hide_nothing(service: Service, story: dict[str, Any], page: Browser) -> None:
    """What cannot be seen, and in a plan what is written from right to left, is shown as an escape."""
    client = service.client()
    job = client.create("greet", name="/srv/א/ב x\u00a0y")
    drafted = client.post(f"/v1/jobs/{job['id']}/draft")
    cancelled = client.post(f"/v1/jobs/{job['id']}/cancel", {"reason": "a\u202eb \u200bשלום"})
    _sign_in(page, service.admin())
    _go(page, f"record={drafted['audit']['record_id']}")
    page.wait("document.getElementById('detail-title').textContent === 'job.draft'", "the record")
    plan = page.evaluate("document.querySelector('.plan').innerText")
    assert "argv 2\t/srv/\\u{5d0}/\\u{5d1} x\\u{a0}y" in plan
    assert "timeout_ms" in plan
    _go(page, f"record={cancelled['audit']['record_id']}")
    page.wait("document.getElementById('detail-title').textContent === 'job.cancel'", "the record")
    assert page.evaluate("document.querySelector('.reason').textContent") == "a\\u{202e}b \\u{200b}שלום"
    assert page.evaluate("document.querySelectorAll('.plan').length") == 0


def test_an_empty_list_in_a_plan_is_shown(service: Service, page: Browser) -> None:
    """A plan that is never retried has an empty list, and a row for it: it does not look like an absent member."""
    client = service.client()
    drafted = client.post(f"/v1/jobs/{client.create('fail')['id']}/draft")
    _sign_in(page, service.admin())
    _go(page, f"record={drafted['audit']['record_id']}")
    page.wait("document.getElementById('detail-title').textContent === 'job.draft'", "the record")
    plan = page.evaluate("document.querySelector('.plan').innerText").splitlines()
    assert {"retry_exit_codes\t[]", "environment\t{}"} <= set(plan)


def test_the_page_escapes_what_the_service_escapes(service: Service, page: Browser) -> None:
    """Every character of Unicode, behind a letter: the page and the command line show the same."""
    escaped = page.evaluate(
        """(() => {
            const found = [];
            for (let point = 0; point <= 0x10ffff; point++) {
                const text = `a${String.fromCodePoint(point)}`;
                if ((point < 0xd800 || point > 0xdfff) && visiblePlan(text) !== text) found.push(point);
            }
            return found;
        })()"""
    )
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    assert escaped == [point for point in points if visible(f"a{chr(point)}") != f"a{chr(point)}"]
    assert page.evaluate("visiblePlan('a\\\\u{202e} \\u202e')") == visible("a\\u{202e} \u202e")


def test_the_page_loads_nothing_from_elsewhere(service: Service, story: dict[str, Any], page: Browser) -> None:
    """Every request goes to the service itself, and the browser has nothing to say about policy or script."""
    _sign_in(page, service.admin())
    _go(page, f"job_id={story['id']}&record={story['links'] and service.client().trail(story['id'])[0]['record_id']}")
    page.wait("!document.getElementById('detail').hidden", "the record")
    assert [url for url in page.requests if not url.startswith((f"{service.url}/", "data:image/svg+xml"))] == []
    assert page.complaints == []
    assert page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0


def test_what_goes_wrong_is_said(service: Service, story: dict[str, Any], page: Browser) -> None:
    """A wrong key, a key without the role, a filter without a match and a record that is not there: each in words."""
    problem = "document.getElementById('problem').innerText"
    _sign_in(page, "atk_0_wrong")
    page.wait(f"{problem}.includes('not known')", "the refusal")
    assert not page.evaluate("document.getElementById('sign-in').hidden")
    _sign_in(page, service.key("vera", VIEWER))
    page.wait(f"{problem}.includes('this needs the role auditor')", "the refusal")
    page.evaluate("document.getElementById('sign-out').click()")
    _sign_in(page, service.admin())
    _go(page, "actor_id=nobody-of-this-name")
    page.wait("document.getElementById('status').textContent.includes('No record matches')", "the empty list")
    _go(page, "record=019b76da-a800-7000-8000-000000000000")
    page.wait(f"{DETAIL}.includes('no such record')", "the missing record")


def test_everything_has_a_name_and_can_be_read(service: Service, story: dict[str, Any], page: Browser) -> None:
    """Every control has a name, headings are in order, texts have contrast, none is cut: light, dark, large, small."""
    _sign_in(page, service.admin())
    _go(page, "record=" + service.client().trail(story["id"])[0]["record_id"])
    page.wait("!document.getElementById('detail').hidden", "the record")
    controls = {"button", "checkbox", "textbox", "combobox", "link", "Date and time"}
    nameless = [(role, name) for role, name in page.accessible() if role in controls and not name.strip()]
    assert nameless == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => +each.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    for dark in (False, True):
        for width in (1280, 360):
            page.show(dark=dark, width=width)
            page.wait(
                f"innerWidth === {width} && matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()}",
                "the window",
            )
            assert page.evaluate(CONTRAST) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            cut = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth)"
            assert page.evaluate(f"{cut}.length") == 0


def test_a_service_that_is_away_is_said_and_looked_for_again(tmp_path: Path) -> None:
    """While the service is down the page says so and keeps what it showed; a second look works once it is back."""
    with Service(tmp_path / "service") as service, Browser(require_chromium(), tmp_path) as page:
        service.client().create("greet", name="x")
        port = service.url.rpartition(":")[2]
        page.open(f"{service.url}/#include_trail=true")
        _sign_in(page, service.admin())
        before = page.evaluate(ROWS)
        service.stop()
        page.evaluate("document.getElementById('again').click()")
        page.wait("document.getElementById('problem').innerText.includes('does not answer')", "the complaint")
        assert page.evaluate(ROWS) == before
        service._arguments = ("--port", port)
        service.start()
        page.evaluate("document.getElementById('again').click()")
        page.wait(f"{SETTLED} && document.getElementById('problem').hidden", "the records")
        assert page.evaluate(ROWS) > before
