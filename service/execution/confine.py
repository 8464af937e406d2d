"""What a forked child of the supervisor gives up before it becomes the command: capabilities, user, system calls.

It uses only the standard library, because the supervisor imports it.
"""

from typing import Final

from service.execution.command import control_process
from service.execution.seccomp import refuse_calls
from service.execution.users import become

PR_SET_DUMPABLE: Final = 4
"""With 0, processes of the same user can neither trace a process nor read its memory and environment."""
_PR_SET_NO_NEW_PRIVS: Final = 38


def confine(user: int | None, *, is_guarded: bool) -> None:
    """Give up what a command does not need; `user` None keeps the user, and `is_guarded` False everything.

    Raises:
        OSError: the kernel refused a call, or has no filter for this machine.
    """
    if is_guarded:
        become(user)
        control_process(_PR_SET_NO_NEW_PRIVS, 1)
        refuse_calls()
