"""The filter of system calls of a run: what a command needs to leave its isolation, the kernel refuses (seccomp(2)).

It uses only the standard library, because the supervisor imports it. Source of the numbers: the kernel's
`syscall_64.tbl` (x86-64) and `unistd.h` of `asm-generic` (aarch64).
"""

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple


class Machine(NamedTuple):
    """An architecture: its number in `linux/audit.h`, its column in the table below, the bit of a second ABI."""

    audit_arch: int
    column: Literal[0, 1]
    foreign_bit: int | None


MACHINES: Final[Mapping[str, Machine]] = {
    # The bit marks calls of the x32 ABI, which reach the same code under other numbers.
    "x86_64": Machine(0xC000003E, 0, 0x40000000),
    "aarch64": Machine(0xC00000B7, 1, None),
}

_REFUSED: Final[Mapping[str, tuple[int | None, int | None]]] = {
    # other processes and the kernel's key rings
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # calls with many faults in the past, and those that pass by this filter
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
}

_NAMESPACES: Final = 0x7E020080
_SET_ID: Final = 0o6000
_CREATES: Final = 0o100 | 0o20000000
_IOCTLS: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX put characters into the input of a terminal."""
_FAMILIES: Final = (38, 40)
"""AF_ALG, and AF_VSOCK, which no network namespace contains."""


class Condition(NamedTuple):
    """A condition on an argument: it has one of the bits of `value`, or is equal to it."""

    argument: int
    is_bits: bool
    value: int


class Rule(NamedTuple):
    """A call that fails with `error` if all conditions hold; its numbers by column, None where it does not exist."""

    numbers: tuple[int | None, int | None]
    conditions: Sequence[Condition] = ()
    error: int = errno.EPERM


def _bits(numbers: tuple[int | None, int | None], argument: int, value: int) -> Rule:
    return Rule(numbers, (Condition(argument, True, value),))


RULES: Final[Sequence[Rule]] = (
    *(Rule(numbers) for numbers in _REFUSED.values()),
    _bits((56, 220), 0, _NAMESPACES),  # clone
    _bits((272, 97), 0, _NAMESPACES),  # unshare
    # Their flags and modes lie in memory, which a filter cannot read. Libraries then use the older calls.
    Rule((435, 435), error=errno.ENOSYS),  # clone3
    Rule((437, 437), error=errno.ENOSYS),  # openat2
    # No file that gives another user the rights of the run's user.
    _bits((90, None), 1, _SET_ID),  # chmod
    _bits((91, 52), 1, _SET_ID),  # fchmod
    _bits((268, 53), 2, _SET_ID),  # fchmodat
    _bits((452, 452), 2, _SET_ID),  # fchmodat2
    _bits((85, None), 1, _SET_ID),  # creat
    _bits((133, None), 1, _SET_ID),  # mknod
    _bits((259, 33), 2, _SET_ID),  # mknodat
    Rule((2, None), (Condition(1, True, _CREATES), Condition(2, True, _SET_ID))),  # open
    Rule((257, 56), (Condition(2, True, _CREATES), Condition(3, True, _SET_ID))),  # openat
    *(Rule((16, 29), (Condition(1, False, request),)) for request in _IOCTLS),  # ioctl
    *(Rule((41, 198), (Condition(0, False, family),)) for family in _FAMILIES),  # socket
)

_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_HAS_BITS: Final = 0x45
_RETURN: Final = 0x06
_KILL: Final = 0x80000000
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_NUMBER_AT: Final = 0
_ARCH_AT: Final = 4
_ARGUMENTS_AT: Final = 16


def filter_program(machine: Machine) -> bytes:
    """Return the program of classic BPF that applies `RULES`; a call of a foreign ABI kills the process.

    Only the low half of an argument is compared: the kernel ignores the rest of these flags, modes and numbers.
    """
    code = [
        _instruction(_LOAD, _ARCH_AT),
        _instruction(_EQUAL, machine.audit_arch, otherwise=0, then=1),
        _instruction(_RETURN, _KILL),
    ]
    if machine.foreign_bit is not None:
        code += [
            _instruction(_LOAD, _NUMBER_AT),
            _instruction(_AT_LEAST, machine.foreign_bit, then=0, otherwise=1),
            _instruction(_RETURN, _KILL),
        ]
    for rule in RULES:
        number = rule.numbers[machine.column]
        if number is not None:
            code += _rule(number, rule)
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def _rule(number: int, rule: Rule) -> list[bytes]:
    """Return the instructions of a rule; where a condition does not hold, they go on behind themselves."""
    left = 2 * len(rule.conditions) + 1
    code = [_instruction(_LOAD, _NUMBER_AT), _instruction(_EQUAL, number, then=0, otherwise=left)]
    for argument, is_bits, value in rule.conditions:
        left -= 2
        code.append(_instruction(_LOAD, _ARGUMENTS_AT + 8 * argument))
        code.append(_instruction(_HAS_BITS if is_bits else _EQUAL, value, then=0, otherwise=left))
    return [*code, _instruction(_RETURN, _ERROR | rule.error)]


def _instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse_calls() -> None:
    """Apply the filter to this process, for good; it has to have PR_SET_NO_NEW_PRIVS.

    Raises:
        OSError: the kernel refused it, or this machine has none.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"there is no filter of system calls for {platform.machine()}")
    code = filter_program(machine)
    program = _Program(len(code) // 8, code)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
    if prctl(22, 2, ctypes.addressof(program), 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
