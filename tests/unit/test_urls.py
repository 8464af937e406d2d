"""No URL and no text shows a user, a password, a query or a credential."""

import pytest

from telemetry.urls import hidden, shown

PW = "c4n4ry"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"postgresql://user:p@{PW}@host", "postgresql://host"),
        (f"postgres://u:{PW} w@h/db?password={PW}", "postgres://h/db"),
        (f"sqlite:///x?key={PW}", "sqlite:///x"),
        ("sqlite:////var/lib/audit@1:2.db", "sqlite:////var/lib/audit@1:2.db"),
        (f"http//user:{PW}@h", "http//h"),
        (f"http:/user:{PW}@h", "h"),
        (f"//{PW}@h/x", "//h/x"),
        (f"user:{PW}@h:4317", "h:4317"),
        (f"https://{PW}@h/x#{PW}", "https://h/x"),
        (f"https://u:{PW}?{PW}#{PW}@h/x", "https://h/x"),
        (f"https://u:{PW}/{PW}@h", "https://h"),
        (f"http://[::1:{PW}@h", "http://h"),
        (f"http://u:\n{PW}@h\n", "http://h\n"),
        (f"host=h password={PW} dbname=a", "host=h password=*** dbname=a"),
        (f"host=h password = '{PW} \\' {PW}' dbname=a", "host=h password = *** dbname=a"),
        ("https://collector:4318/v1/logs", "https://collector:4318/v1/logs"),
        ("grpc://[::1]:4317", "grpc://[::1]:4317"),
        ("localhost:4317", "localhost:4317"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, expected: str) -> None:
    """User, password, query and fragment are left out, also of what is no URL; the rest stays."""
    assert shown(url) == expected
    assert PW not in hidden(shown(url))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Client error '401' for url 'https://id/keys?k={PW}'", "Client error '401' for url 'https://id/keys?***'"),
        (f"Max retries exceeded with url: /v1/traces?k={PW} (Caused by", "exceeded with url: /v1/traces?*** (Caused"),
        (f"proxy socks5://me:{PW}@p:1080 failed", "proxy socks5://***@p:1080 failed"),
        (f"connection to postgres://u:{PW}@h/a?x={PW}: no", "connection to postgres://***@h/a?*** no"),
        (f"PGPASSWORD={PW} psql", "PGPASSWORD=*** psql"),
        (f"authorization='{PW} {PW}'", "authorization=***"),
        (f"sent Authorization: Bearer {PW * 4}", "sent Authorization: Bearer ***"),
        (f"Basic {PW * 4}==", "Basic ***"),
        (f"key atk_0123_{PW} is wrong", "key atk_0123_*** is wrong"),
        (f"token eyJhbGciOiJub25lIn0.{PW}.{PW} is wrong", "token *** is wrong"),
        (f"violates\nDETAIL:  Key (k)=({PW}) exists.\nHINT:  x", "violates\nDETAIL:  ***\nHINT:  x"),
        (f"violates\nCONTEXT:  COPY a, line 1: {PW}", "violates\nCONTEXT:  ***"),
        (f"\\\\ua\n  x://{PW}@{PW}@h", "x://***@h"),
    ],
)
def test_a_text_of_a_library_is_printed_without_secrets(text: str, expected: str) -> None:
    """URLs, assignments, credentials, and what a database says of rows; the rest stays readable."""
    assert expected in hidden(text)
    assert PW not in hidden(text)


@pytest.mark.parametrize(
    "text",
    [
        "there is no ledger at sqlite:///var/auditrace.db (/srv/var/auditrace.db): set AUDITRACE_DATABASE",
        "an auditrace listens on http://127.0.0.1:8080",
        "the ledger secret /srv/ledger.secret has mode 0644 and is open to others: chmod 600 /srv/ledger.secret",
        "this needs an API key or token: Authorization: Bearer …",
        "os:anna@db-1 reloaded /srv/jobs.toml",
        "is it right? say https://collector:4318/v1/logs",
        "sqlite:////var/lib/audit@1:2.db",
    ],
)
def test_what_holds_no_secret_is_printed_unchanged(text: str) -> None:
    """Paths, addresses and names of people are what operators read messages for."""
    assert hidden(text) == text
