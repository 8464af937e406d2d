"""Key files: who may read them, when they are made, and that a rotation never leaves the current key nowhere."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from service.bootstrap.databases import database_of
from service.errors import SettingsError
from service.keyfiles import SigningKeys, deployment_secret
from service.private_files import create_private_file
from telemetry.audit.signer import Signer
from tests.support.both_stores import BOTH, Store
from tests.support.ledger_maker import FOREIGN_KEY, KEY
from tests.support.stores import SECRET

PKCS8 = PrivateFormat.PKCS8


class DiedError(BaseException):
    """Stands for the death of a process: nothing that a program does about errors happens."""


def _private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def _pem(key: Ed25519PrivateKey = KEY, passphrase: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PKCS8, encryption)


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    """The signing key of a process, whose file is the tests' own key."""
    return SigningKeys(_private(tmp_path / "signing.pem", _pem()))


def test_a_key_is_made_only_when_it_may_be(tmp_path: Path) -> None:
    """Without leave a missing key is an error; with it one is made that only its owner can read, and it stays."""
    keys = SigningKeys(tmp_path / "keys" / "signing.pem")
    with pytest.raises(SettingsError, match="missing"):
        keys.open(may_create=False)
    made = keys.open(may_create=True)
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert keys.path.parent.stat().st_mode & 0o077 == 0
    assert b"BEGIN PRIVATE KEY" in keys.path.read_bytes()
    assert keys.open(may_create=True).fingerprint == made.fingerprint
    assert [path.name for path in keys.path.parent.iterdir()] == ["signing.pem"]


def test_a_key_that_was_given_is_used(keys: SigningKeys) -> None:
    """A PKCS#8 PEM file that an operator put there is the key."""
    assert keys.open(may_create=True).fingerprint == Signer(KEY).fingerprint


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_files_that_others_may_read_are_refused(tmp_path: Path, mode: int) -> None:
    """Key, passphrase and secret are not used while anybody else could have read them; the error says what to do."""
    passphrase = _private(tmp_path / "passphrase", b"open sesame", mode)
    encrypted = _private(tmp_path / "encrypted.pem", _pem(passphrase=b"open sesame"))
    with pytest.raises(SettingsError, match=f"chmod 600 {passphrase}"):
        SigningKeys(encrypted, passphrase).open(may_create=False)
    with pytest.raises(SettingsError, match="chmod 600"):
        SigningKeys(_private(tmp_path / "signing.pem", _pem(), mode)).open(may_create=False)
    with pytest.raises(SettingsError, match="chmod 600"):
        deployment_secret(_private(tmp_path / "secret", b"s" * 64, mode), may_create=False)


def test_an_encrypted_key_is_opened_with_the_passphrase_of_its_file(tmp_path: Path) -> None:
    """An encrypted PKCS#8 file is decrypted with a passphrase that stands in a file of its own."""
    path = _private(tmp_path / "signing.pem", _pem(passphrase=b"open sesame"))
    keys = SigningKeys(path, _private(tmp_path / "passphrase", b"open sesame\n"))
    assert keys.open(may_create=False).fingerprint == Signer(KEY).fingerprint
    with pytest.raises(SettingsError, match="AUDITRACE_SIGNING_KEY_PASSPHRASE_FILE"):
        SigningKeys(path).open(may_create=False)
    with pytest.raises(SettingsError, match="passphrase is wrong"):
        SigningKeys(path, _private(tmp_path / "wrong", b"open barley")).open(may_create=False)
    with pytest.raises(SettingsError, match="holds no passphrase"):
        SigningKeys(path, _private(tmp_path / "empty", b"\n")).open(may_create=False)


def test_a_key_that_is_made_under_a_passphrase_is_encrypted(tmp_path: Path) -> None:
    """With a passphrase set, no plain key ever reaches the disk."""
    keys = SigningKeys(tmp_path / "signing.pem", _private(tmp_path / "passphrase", b"open sesame"))
    made = keys.open(may_create=True)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in keys.path.read_bytes()
    assert load_pem_private_key(keys.path.read_bytes(), b"open sesame").public_key() == made.public_key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        _pem()[:60] + b"-----END PRIVATE KEY-----",
        KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        Signer(KEY).public_pem.encode(),
        generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PKCS8, NoEncryption()),
    ],
    ids=["empty", "text", "cut", "openssh", "public", "rsa"],
)
def test_what_is_no_ed25519_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is something else gives an error that names it, never a traceback."""
    path = _private(tmp_path / "signing.pem", content)
    with pytest.raises(SettingsError, match=r"signing\.pem"):
        SigningKeys(path).open(may_create=False)


def test_a_secret_is_made_only_when_it_may_be(tmp_path: Path) -> None:
    """The ledger secret is made like the key, long enough, and a short one is refused."""
    path = tmp_path / "keys" / "ledger.secret"
    with pytest.raises(SettingsError, match="missing"):
        deployment_secret(path, may_create=False)
    made = deployment_secret(path, may_create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert deployment_secret(path, may_create=True).tip_mac("s", 1, "h") == made.tip_mac("s", 1, "h")
    with pytest.raises(SettingsError, match="shorter than 32"):
        deployment_secret(_private(tmp_path / "short", b"too short"), may_create=False)


def test_of_two_processes_that_make_a_file_the_first_ones_stays(tmp_path: Path) -> None:
    """A private file that exists is never overwritten, and nothing unfinished is left beside it."""
    path = tmp_path / "signing.pem"
    create_private_file(path, b"first")
    create_private_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.stores(*BOTH)
def test_a_database_is_empty_until_something_is_committed_or_a_key_registered(store: Store) -> None:
    """Only an empty database gets new keys; that the schema was made already does not count."""
    database = database_of(store.database)
    assert database.is_empty()
    assert list(database.keys(SECRET)) == []
    store.checkpoints(store.lane())
    assert not database.is_empty()


def test_a_database_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """Before the first start there is no file."""
    assert database_of(f"sqlite:///{tmp_path}/ledger.db").is_empty()


@pytest.mark.stores(*BOTH)
def test_a_database_with_records_and_no_key_is_not_empty(store: Store) -> None:
    """What was committed without a registered key is no reason to make one."""
    store.lane().submit(lambda transaction: transaction.save(store.fact())).result()
    assert not database_of(store.database).is_empty()


def test_a_rotation_puts_the_new_key_in_the_place_of_the_old_one(keys: SigningKeys) -> None:
    """When it returns there is one file, with the new key; the old one is gone from the disk."""
    signing = [Signer(KEY).fingerprint]
    number = keys.rotate(lambda: signing[-1], None, lambda new: signing.append(new.fingerprint) or 7)
    assert number == 7
    assert keys.open(may_create=False).fingerprint == signing[-1] != Signer(KEY).fingerprint
    assert list(keys.path.parent.iterdir()) == [keys.path]
    assert keys.path.stat().st_mode & 0o777 == 0o600


def test_a_rotation_to_a_given_key_leaves_its_file_alone(keys: SigningKeys, tmp_path: Path) -> None:
    """The given key is copied, as it is encrypted; its file stays where it was."""
    signing = [Signer(KEY).fingerprint]
    given = _private(tmp_path / "given.pem", _pem(FOREIGN_KEY))
    keys.rotate(lambda: signing[-1], given, lambda new: signing.append(new.fingerprint) or 1)
    assert signing[-1] == Signer(FOREIGN_KEY).fingerprint
    assert keys.path.read_bytes() == given.read_bytes()


def test_a_rotation_to_an_encrypted_key_needs_its_passphrase(keys: SigningKeys, tmp_path: Path) -> None:
    """A new key that the settings could not open afterwards is refused before anything changes."""
    given = _private(tmp_path / "given.pem", _pem(FOREIGN_KEY, b"open sesame"))

    def commit(_: Signer) -> int:
        raise AssertionError("committed")

    with pytest.raises(SettingsError, match="encrypted"):
        keys.rotate(lambda: Signer(KEY).fingerprint, given, commit)
    assert not keys.pending.exists()
    with_passphrase = SigningKeys(keys.path, _private(tmp_path / "passphrase", b"open sesame"))
    assert with_passphrase.rotate(lambda: Signer(KEY).fingerprint, given, lambda _: 1) == 1
    assert with_passphrase.open(may_create=False).fingerprint == Signer(FOREIGN_KEY).fingerprint


def test_a_rotation_to_the_key_that_signs_is_refused(keys: SigningKeys, tmp_path: Path) -> None:
    """Nothing would change, so nothing is recorded."""
    given = _private(tmp_path / "given.pem", _pem())
    with pytest.raises(SettingsError, match="rotation needs another"):
        keys.rotate(lambda: Signer(KEY).fingerprint, given, lambda _: 1)
    assert not keys.pending.exists()


def test_a_process_that_dies_before_the_commit_leaves_the_old_key_in_force(keys: SigningKeys) -> None:
    """The new key's file is there and means nothing: the old one is found, and the next rotation replaces it."""
    signing = [Signer(KEY).fingerprint]

    def die(_: Signer) -> int:
        raise DiedError

    with pytest.raises(DiedError):
        keys.rotate(lambda: signing[-1], None, die)
    restarted = SigningKeys(keys.path)
    restarted.settle(signing[-1])
    assert restarted.open(may_create=False).fingerprint == signing[-1]
    assert restarted.find(signing[-1]) is not None
    restarted.rotate(lambda: signing[-1], None, lambda new: signing.append(new.fingerprint) or 1)
    assert restarted.open(may_create=False).fingerprint == signing[-1]
    assert not restarted.pending.exists()


def test_a_process_that_dies_after_the_commit_leaves_the_new_key_beside_its_place(keys: SigningKeys) -> None:
    """Every process finds the key that the database names, at once; the next start, or rotation, puts it in place."""
    signing = [Signer(KEY).fingerprint]

    def die(new: Signer) -> int:
        signing.append(new.fingerprint)
        raise DiedError

    running = SigningKeys(keys.path)
    assert running.find(signing[0]) is not None
    with pytest.raises(DiedError):
        keys.rotate(lambda: signing[-1], None, die)
    assert running.find(signing[-1]) is not None
    restarted = SigningKeys(keys.path)
    assert restarted.find(signing[-1]) is not None
    restarted.settle(signing[-1])
    assert not restarted.pending.exists()
    assert restarted.open(may_create=False).fingerprint == signing[-1]
    with pytest.raises(DiedError):
        restarted.rotate(lambda: signing[-1], None, die)
    restarted.rotate(lambda: signing[-1], None, lambda new: signing.append(new.fingerprint) or 1)
    assert SigningKeys(keys.path).open(may_create=False).fingerprint == signing[-1]


def test_a_rotation_does_not_throw_away_what_one_that_was_cut_short_made(keys: SigningKeys) -> None:
    """A key that was committed and is not in its place yet is put there before another takes the pending place."""
    signing = [Signer(KEY).fingerprint]

    def die_after(new: Signer) -> int:
        signing.append(new.fingerprint)
        raise DiedError

    def die_before(_: Signer) -> int:
        raise DiedError

    for commit in (die_after, die_before):
        with pytest.raises(DiedError):
            keys.rotate(lambda: signing[-1], None, commit)
    assert SigningKeys(keys.path).find(signing[-1]) is not None


def test_a_key_that_is_nowhere_is_not_found(keys: SigningKeys) -> None:
    """A fingerprint that neither file has is None, and not an error: another node may hold it."""
    assert keys.find(Signer(FOREIGN_KEY).fingerprint) is None


def test_a_folder_that_cannot_be_written_stops_a_rotation_before_it_begins(tmp_path: Path) -> None:
    """Where the key comes from a read-only place nothing is committed; the error names the folder."""
    missing = SigningKeys(tmp_path / "nowhere" / "signing.pem")
    with pytest.raises(SettingsError, match="cannot be written"):
        missing.rotate(lambda: Signer(KEY).fingerprint, None, lambda _: 1)
