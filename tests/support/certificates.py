"""Certificates that trustme makes, in files that a test exchanges while they are used."""

from datetime import UTC, datetime
from pathlib import Path

from trustme import CA, LeafCert

_LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


def issue(authority: CA, *, is_expired: bool = False) -> LeafCert:
    """Returns a certificate for 127.0.0.1, for servers and clients alike; an expired one ended in 2001."""
    return authority.issue_cert("127.0.0.1", not_after=_LONG_AGO if is_expired else None)


def write(issued: LeafCert, folder: Path, name: str) -> tuple[Path, Path]:
    """Writes `name.crt` and `name.key`, each whole or not at all, and returns their paths."""
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    replace(paths[0], issued.cert_chain_pems[0].bytes())
    replace(paths[1], issued.private_key_pem.bytes())
    return paths


def replace(path: Path, content: bytes) -> None:
    """Writes a file beside and renames it, so that a reader never sees half of a certificate or a token."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content)
    beside.rename(path)
