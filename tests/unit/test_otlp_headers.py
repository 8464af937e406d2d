"""A header that cannot be sent is refused where it is read, with words that show no secret."""

from pathlib import Path

import pytest

from telemetry.otlp_headers import authorization, metadata_of, parse_headers

BOTH = (False, True)


@pytest.mark.parametrize("is_grpc", BOTH)
def test_names_are_lower_case_and_values_decoded(is_grpc: bool) -> None:
    """As the specification has it: white space around is no part, and a value may hold equals signs."""
    parsed = parse_headers("X-Tenant = a%20b , authorization=Basic dTpw==,,empty=", is_grpc=is_grpc)
    assert parsed == {"x-tenant": "a b", "authorization": "Basic dTpw==", "empty": ""}
    assert parse_headers("", is_grpc=is_grpc) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3cret", "pair 1 has no `=`"),
        ("a=1,s3cret", "pair 2 has no `=`"),
        ("=s3cret", "a name that cannot be sent"),
        ("s3 cret=1", "a name that cannot be sent"),
        ("s3cret%0A=1", "a name that cannot be sent"),
        ("s3cr\u00e9t=1", "a name that cannot be sent"),
        (":s3cret=1", "a name that cannot be sent"),
        ("a=s3%0Acret", "a value that cannot be sent"),
        ("a=s3%0D%0Ax-injected: cret", "a value that cannot be sent"),
        ("a=s3%00cret", "a value that cannot be sent"),
        ("a=s3cr\u00e9t", "a value that cannot be sent"),
        ("a=s3cr%C3%A9t", "a value that cannot be sent"),
        ("a=%7Fs3cret", "a value that cannot be sent"),
        ("a=%20s3cret", "begins or ends with a blank"),
        ("a=s3cret%20", "begins or ends with a blank"),
        ("a=%20", "begins or ends with a blank"),
        ("Content-Length=5", "content-length cannot be set"),
        ("content-encoding=gzip", "content-encoding cannot be set"),
        ("transfer-encoding=chunked", "transfer-encoding cannot be set"),
        ("connection=close", "connection cannot be set"),
        ("user-agent=me", "user-agent cannot be set"),
    ],
)
@pytest.mark.parametrize("is_grpc", BOTH)
def test_a_header_that_cannot_be_sent_is_refused(text: str, said: str, is_grpc: bool) -> None:
    """Whatever it is sent over; what stands there is not shown."""
    with pytest.raises(ValueError, match=said) as refused:
        parse_headers(text, is_grpc=is_grpc)
    assert "cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x!y=1", "a name that cannot be sent"),
        ("a=1%092", "a value that cannot be sent"),
        ("grpc-timeout=1S", "reserved for gRPC"),
        ("Grpc-Anything=1", "reserved for gRPC"),
        ("key-bin=not base64", "must be base64"),
        ("key-bin=abcde", "must be base64"),
        ("key-bin=AQID%2CAQID", "must be base64"),
    ],
)
def test_grpc_takes_less(text: str, said: str) -> None:
    """What HTTP could carry as it is, is refused over gRPC alone."""
    assert parse_headers(text, is_grpc=False)
    with pytest.raises(ValueError, match=said):
        parse_headers(text, is_grpc=True)


@pytest.mark.parametrize("value", ["AQID/w==", "AQID/w", "AQID%2Fw%3D%3D"])
def test_a_binary_header_is_base64(value: str) -> None:
    """Padded or not, as in gRPC's own protocol; gRPC gets the bytes."""
    parsed = parse_headers(f"key-bin={value},plain={value},empty-bin=", is_grpc=True)
    metadata = dict(metadata_of(parsed))
    assert metadata["key-bin"] == b"\x01\x02\x03\xff"
    assert metadata["empty-bin"] == b""
    assert metadata["plain"] == parsed["plain"]


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "tok\u00e9n", "to\tken"])
def test_a_token_that_cannot_be_sent_is_refused(tmp_path: Path, text: str) -> None:
    """One token a file; white space around it is no part of it."""
    file = tmp_path / "token"
    file.write_text(" abc \n", encoding="utf-8")
    assert authorization(file) == "Bearer abc"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="must hold one token"):
        authorization(file)
