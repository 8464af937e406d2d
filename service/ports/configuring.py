"""The configurations in force, as the ledger knows them."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from service.secrets import DeploymentSecret
from telemetry.audit.canonical import canonical_bytes, sha256_hex

SettingValue: TypeAlias = str | int | bool

SINK: Final = "sink."
"""The beginning of the names of settings that say where records are delivered."""


class Configuration(msgspec.Struct, frozen=True):
    """What a process applies: values of settings by name, and the SHA-256 of each template's text. It has no secret."""

    settings: Mapping[str, SettingValue]
    templates: Mapping[str, str]

    @property
    def document(self) -> str:
        """Its RFC 8785 text."""
        return canonical_bytes({"settings": self.settings, "templates": self.templates}).decode()

    @property
    def sha256(self) -> str:
        """The SHA-256 of its text."""
        return sha256_hex(self.document.encode())

    @property
    def sink(self) -> Mapping[str, SettingValue]:
        """The settings that say where records are delivered; none if its processes deliver no records."""
        return {name: value for name, value in self.settings.items() if name.startswith(SINK)}


def configuration_in(document: str) -> Configuration:
    """Return the configuration of a text that `document` returned."""
    return msgspec.json.decode(document, type=Configuration)


class StoredConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that was in force in the processes of one `source` on one host; the newest has the last `number`.

    `record_id` is the record that states it. `before` is the number of the configuration with the sink that was in
    force until then, None if the record is offered to no sink.
    """

    number: int
    source: str
    host: str
    document: str
    delivers: int
    record_id: str
    before: int | None
    mac: str = ""

    @property
    def configuration(self) -> Configuration:
        """What it says."""
        return configuration_in(self.document)

    def authenticated(self, secret: DeploymentSecret) -> "StoredConfiguration":
        """Return it with its MAC."""
        values = (self.number, self.source, self.host, self.document, self.delivers, self.record_id, self.before or 0)
        return msgspec.structs.replace(self, mac=secret.configuration_mac(*values))

    def is_authentic(self, secret: DeploymentSecret) -> bool:
        """Tell whether a process of this deployment stored it."""
        return self.mac == self.authenticated(secret).mac


class PendingOffer(msgspec.Struct, frozen=True):
    """A record of a changed configuration that was not offered to the sink before: its place, and what is known.

    `document` is the text of the changed configuration, `number` its number; `known` has the sink before.
    """

    number: int
    document: str
    stream_id: str
    record_number: int
    known: StoredConfiguration

    @property
    def changed(self) -> Configuration:
        """The changed configuration."""
        return configuration_in(self.document)
