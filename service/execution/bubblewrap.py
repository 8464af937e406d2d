"""What a run sees of the file system, as arguments of bubblewrap; reads only which folders exist.

The rest of its isolation (system calls, user, capabilities) is in `service/execution/sandbox.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt")
"""Where programs lie."""

_OF_ETC: Final = (
    *(
        "alternatives",
        "ca-certificates",
        "fonts",
        "gai.conf",
        "group",
        "host.conf",
        "hosts",
        "ld.so.cache",
        "ld.so.conf",
    ),
    *("ld.so.conf.d", "locale.alias", "localtime", "magic", "mime.types", "nsswitch.conf", "passwd", "pki/ca-trust"),
    *("pki/tls/certs", "protocols", "resolv.conf", "services", "ssl/certs", "ssl/openssl.cnf", "timezone"),
)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_MEBIBYTE: Final = 2**20
_MOST_TMP_BYTES: Final = 256 * _MEBIBYTE


def sandbox_arguments(
    work: Path,
    program: str,
    *,
    is_root: bool,
    network: bool,
    memory_bytes: int,
    reads: Sequence[str],
    writes: Sequence[str],
    hidden: Sequence[Path],
) -> list[str]:
    """Return the options of bubblewrap for one run, without the command.

    Args:
        work: the working folder of the run, which it may change.
        program: the program that it executes; a path outside of the system is shown too.
        is_root: whether the supervisor is root; others need a user namespace.
        network: whether it has the network of the host.
        memory_bytes: the limit of its memory, which also limits its `/tmp`.
        reads: folders of the host that it may read.
        writes: folders of the host that it may change.
        hidden: folders and files that it never sees, within which folders ever.
    """
    # Without a terminal of its own (`--dev`), bubblewrap needs one user namespace only, which the supervisor can join.
    arguments = [] if is_root else ["--unshare-user"]
    arguments += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += [] if network else ["--unshare-net"]
    arguments += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    shown = [*SYSTEM, *(f"/etc/{name}" for name in _OF_ETC), *reads]
    arguments += ["--proc", "/proc", "--ro-bind-try", "/proc/sys", "/proc/sys", *_devices()]
    arguments += ["--size", str(min(memory_bytes, _MOST_TMP_BYTES)), "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108 - that of the sandbox
    for path in shown:
        arguments += [*_folders_to(path), "--ro-bind-try", path, path]
    for path in writes:
        arguments += [*_folders_to(path), "--bind-try", path, path]
    found = dict(_masks([*shown, *writes], hidden))
    # What lies in a hidden folder is hidden with it.
    masks = {mask: is_folder for mask, is_folder in found.items() if not any(map(found.get, _above(mask)))}
    for folder in _held(writes, masks):
        arguments += ["--bind", folder, folder]
    for mask, is_folder in masks.items():
        arguments += ["--size", str(_MEBIBYTE), "--tmpfs", mask] if is_folder else ["--ro-bind", "/dev/null", mask]
    if program.startswith("/") and not any(Path(program).is_relative_to(path) for path in [*shown, *writes]):
        arguments += [*_folders_to(program), "--ro-bind-try", program, program]
    arguments += [*_folders_to(str(work)), "--bind", str(work), str(work)]
    for path in ("/dev", *(mask for mask, is_folder in masks.items() if is_folder), "/"):
        arguments += ["--remount-ro", path]
    return arguments


def _devices() -> Iterator[str]:
    yield from ("--size", str(_MEBIBYTE), "--tmpfs", "/dev")
    for name in _DEVICES:
        yield from ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    for name, number in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        yield from ("--symlink", f"/proc/self/fd{number}", f"/dev/{name}")
    yield from ("--size", str(16 * _MEBIBYTE), "--perms", "1777", "--tmpfs", "/dev/shm")  # noqa: S108 - that of the sandbox


def _folders_to(path: str) -> Iterator[str]:
    """Yield options that make the folders above `path`, searchable for every user."""
    for folder in reversed(Path(path).parents[:-1]):
        yield from ("--perms", "0755", "--dir", str(folder))


def _above(path: str) -> Iterator[str]:
    yield from map(str, Path(path).parents)


def _held(writes: Sequence[str], masks: Iterable[str]) -> Sequence[str]:
    """Return the folders between a folder that may be changed and what is hidden in it, the outer ones first.

    The kernel moves no folder on which something is mounted. Otherwise a run could move them, and the hidden ones with
    them.
    """
    found = [
        str(parent)
        for mask in masks
        for path in map(Path, writes)
        for parent in reversed(Path(mask).parents)
        if parent != path and parent.is_relative_to(path)
    ]
    return list(dict.fromkeys(found))


def _masks(shown: Sequence[str], hidden: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """Yield the paths under which something hidden could be seen, also through links, and whether it is a folder."""
    for path in shown:
        real = Path(path).resolve()
        for each in hidden:
            found = each.resolve()
            if found.exists() and found.is_relative_to(real):
                yield str(Path(path) / found.relative_to(real)), found.is_dir()
