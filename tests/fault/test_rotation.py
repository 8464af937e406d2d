"""A rotation of the signing key that dies at any of its steps leaves the key that the database names on disk."""

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service.keyfiles import SigningKeys
from tests.support.collector import ROOT
from tests.support.sqlite_stores import SqliteStore

KILLED_AT_EACH_STEP = """
import itertools, os, signal, sys
from pathlib import Path
from service.keyfiles import SigningKeys
from tests.support.sqlite_stores import SqliteStore

STEPS = ("open", "fsync", "link", "unlink", "replace", "close")

def die_at(number):
    steps = itertools.count(1)
    def dying(function):
        def step(*arguments, **more):
            if next(steps) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)
        return step
    for name in STEPS:
        setattr(os, name, dying(getattr(os, name)))
    return dying

def begin(folder):
    keys = SigningKeys(folder / "signing.pem")
    signer = keys.open(may_create=True)
    store = SqliteStore(folder)
    lane = store.lane()
    writer = store.checkpoints(lane, signer)
    lane.close(writer.write_last)
    store.close()

def rotate(folder, number):
    keys = SigningKeys(folder / "signing.pem")
    store = SqliteStore(folder, instance=1)
    lane = store.lane()
    writer = store.checkpoints(lane, keys.open(may_create=False))
    dying = die_at(number)
    # Death before and after the commit, too; what may happen within it is that of every transaction.
    commit = dying(lambda new: (writer.rotate(new), dying(lambda: None)())[0])
    keys.rotate(lambda: writer.registered()[-1].fingerprint, None, commit)

for number in itertools.count(1):
    folder = Path(sys.argv[1], str(number))
    folder.mkdir()
    for work in (lambda: begin(folder), lambda: rotate(folder, number)):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
    if status == 0:
        break
    if os.WIFEXITED(status):
        sys.exit(f"step {number} failed and was not killed")
print(number)
"""


def test_the_key_that_signs_is_found_wherever_a_rotation_died(tmp_path: Path) -> None:
    """After each death the next process finds the private key, signs with it, and can rotate again."""
    script = [sys.executable, "-c", KILLED_AT_EACH_STEP, str(tmp_path)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps > 10
    rotated: list[int] = []
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        store = SqliteStore(folder, instance=2)
        keys = SigningKeys(folder / "signing.pem")
        writer = store.checkpoints(store.lane(), keys.open(may_create=False), find=keys.find)
        rotated.append(len(writer.registered()) - 1)
        assert writer.write() is not None, step
        keys.settle(writer.registered()[-1].fingerprint)
        assert keys.open(may_create=False).fingerprint == writer.registered()[-1].fingerprint, step
        keys.rotate(lambda writer=writer: writer.registered()[-1].fingerprint, None, writer.rotate)
        assert writer.write() is not None, step
        assert [path.name for path in folder.glob("signing*")] == ["signing.pem"], step
        public = [load_pem_public_key(key.public_pem.encode()) for key in writer.registered()]
        report = store.verify(*(key for key in public if isinstance(key, Ed25519PublicKey)))
        assert (report.verdict, report.findings) == ("intact", ()), step
        store.close()
    # It died before the commit first, and after it later.
    assert rotated == sorted(rotated)
    assert set(rotated) == {0, 1}
