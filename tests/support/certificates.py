"""Makes certificates for tests: authorities, and servers and clients that they vouch for, all of them for 127.0.0.1."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOUR = timedelta(hours=1)


class Issued(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes `name.crt` and `name.key`, each whole or not at all, and returns their paths."""
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        for path, content in zip(paths, self, strict=True):
            replace(path, content)
        return paths


class Authority:
    """A certificate authority of its own."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._now = _certificate_clock()
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._now - _HOUR, self._now + 24 * _HOUR)
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(Encoding.PEM)

    def issue(self, name: str, *, is_expired: bool = False) -> Issued:
        """Issues a certificate for 127.0.0.1, for servers and clients alike; valid for a day, or until an hour ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        begin, end = self._now - 2 * _HOUR, self._now + (-_HOUR if is_expired else 24 * _HOUR)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        certificate = (
            self._builder(subject, begin, end)
            .public_key(key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(usage, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Issued(certificate.public_bytes(Encoding.PEM), pem)

    def _builder(self, subject: x509.Name, begin: datetime, end: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )


class Client(NamedTuple):
    """What a client trusts, and what it shows for itself; the same for HTTP and gRPC."""

    trusted: bytes
    shown: Issued | None
    folder: Path

    @classmethod
    def of(cls, folder: Path, trusted: Authority, shown: Issued | None) -> Self:
        """Returns a client that trusts an authority; `folder` gets the files that Python's ssl insists on."""
        return cls(trusted.certificate, shown, folder)

    def http(self) -> ssl.SSLContext:
        """Returns the context for OTLP/HTTP."""
        context = ssl.create_default_context(cadata=self.trusted.decode())
        if self.shown:
            certificate, key = self.shown.write(self.folder, "client")
            context.load_cert_chain(certificate, key)
        return context

    def grpc(self) -> grpc.ChannelCredentials:
        """Returns the credentials for OTLP/gRPC."""
        if self.shown is None:
            return grpc.ssl_channel_credentials(self.trusted)
        return grpc.ssl_channel_credentials(self.trusted, self.shown.key, self.shown.certificate)


def replace(path: Path, content: bytes) -> None:
    """Writes a file beside and renames it, as whoever rotates a certificate or a token must."""
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(content)
    beside.rename(path)


def _certificate_clock() -> datetime:
    # The validity of a certificate is checked by others against the real clock.
    return datetime.now(UTC)  # noqa: TID251
