"""After any sequence of creations, rotations and revocations exactly the right secrets authenticate."""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.roles import VIEWER
from tests.support.api import ApiUnderTest, Client
from tests.support.sqlite_stores import SqliteStore

STEPS = st.one_of(
    st.tuples(st.just("rotate"), st.integers(0, 1), st.sampled_from([0, 60, 600])),
    st.tuples(st.just("revoke"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("wait"), st.just(0), st.sampled_from([30, 60, 600])),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=8))
def test_exactly_the_right_secrets_authenticate(steps: list[tuple[str, int, int]]) -> None:
    """The newest secret of a key that is not revoked does, and the one before it until its overlap ends."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder))
        api = ApiUnderTest(store, Path(folder))
        try:
            _carry_out(api, steps)
        finally:
            api.close()
            store.close()


def _carry_out(api: ApiUnderTest, steps: list[tuple[str, int, int]]) -> None:
    root = api.client("root")
    bodies = ({"name": name, "roles": [VIEWER]} for name in ("one", "two"))
    made = [root.post("/v1/keys", body).json() for body in bodies]
    now_s, revoked = 0, set[int]()
    # Each secret of each key with the time at which it ends.
    secrets: list[list[tuple[str, int | None]]] = [[(key["key"], None)] for key in made]
    for act, which, amount in steps:
        path = f"/v1/keys/{made[which]['id']}"
        if act == "wait":
            api.clock.advance(amount)
            now_s += amount
        elif act == "revoke":
            assert root.request("DELETE", path).status_code == 200
            revoked.add(which)
        else:
            answer = root.post(f"{path}/rotate", {"overlap": f"{amount}s"})
            assert answer.status_code == (409 if which in revoked else 200)
            if which not in revoked:
                *_, (last, _) = secrets[which]
                ended = [(secret, 0) for secret, _ in secrets[which][:-1]]
                secrets[which] = [*ended, (last, now_s + amount), (answer.json()["key"], None)]
        for number, of_key in enumerate(secrets):
            for secret, end_s in of_key:
                is_accepted = number not in revoked and (end_s is None or now_s < end_s)
                assert (Client(api, secret).get("/v1/me").status_code == 200) == is_accepted
    api.keys.check_all()
    assert api.keys.problems == {}
