"""What the deployment's secret is used for: each use apart from the others, and from every other deployment."""

import pytest
from cryptography.exceptions import InvalidTag

from service.secrets import MASK_PREFIX, DeploymentSecret

SECRET = DeploymentSecret(b"s" * 32)


def test_macs_of_one_value_differ_by_use_and_by_secret() -> None:
    """No MAC can be taken for one of another use, or of another deployment."""
    macs = [
        secret_mac
        for secret in (SECRET, DeploymentSecret(b"t" * 32))
        for secret_mac in (
            secret.tip_mac("1", 1, "1"),
            secret.anchor_mac("1", 1, "1", 1, 1),
            secret.checkpoint_mac(1, "1", "1", "1", 1, 1),
            secret.key_mac(1, "1", 1, "1"),
            secret.mask("1"),
        )
    ]
    assert len(set(macs)) == len(macs)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("s", 1, "h"), ("s", 2, "h")),
        (("s", 1, "h"), ("t", 1, "h")),
        (("s", 1, "h"), ("s", 1, "i")),
        (("s", 11, "h"), ("s1", 1, "h")),
        (("s\n1", 1, "h"), ("s", 1, "1\nh")),
        (('s",1,"', 1, "h"), ("s", 1, '",1,"h')),
    ],
)
def test_a_mac_covers_each_part_by_itself(one: tuple[str, int, str], other: tuple[str, int, str]) -> None:
    """Parts that run together to the same text have different MACs all the same."""
    assert SECRET.tip_mac(*one) != SECRET.tip_mac(*other)


def test_equal_values_are_recognised_and_none_can_be_read() -> None:
    """The mask of a sensitive value is the same for the same value, and holds nothing of it."""
    assert SECRET.mask("token-1") == SECRET.mask("token-1") != SECRET.mask("token-2")
    assert SECRET.mask("token-1").startswith(MASK_PREFIX)
    assert "token" not in SECRET.mask("token-1")


def test_an_encrypted_value_is_of_its_job_alone() -> None:
    """A ciphertext that was moved to another job, or changed, is not decrypted; two of one value differ."""
    ciphertext = SECRET.encrypt("token-1", "job-1")
    assert SECRET.decrypt(ciphertext, "job-1") == "token-1"
    assert SECRET.encrypt("token-1", "job-1") != ciphertext
    for changed, job_id in ((ciphertext, "job-2"), (ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), "job-1")):
        with pytest.raises(InvalidTag):
            SECRET.decrypt(changed, job_id)
    with pytest.raises(InvalidTag):
        DeploymentSecret(b"t" * 32).decrypt(ciphertext, "job-1")
