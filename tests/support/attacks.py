"""A hostile command: it tries what a run must not do, and prints which attempts succeeded.

No attempt does harm where it succeeds, except that it plants a table in a database and files under `/etc` and `/usr`.
"""

import json
from collections.abc import Mapping, Sequence

SCRIPT = r"""
import ctypes, json, os, platform, socket, sqlite3, sys

given = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == "aarch64"
won = []

def attempt(name):
    def decorate(function):
        try:
            if function() is not False:
                won.append(name)
        except (OSError, sqlite3.Error):
            pass
    return decorate

def called(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")

for name, path in given["files"].items():
    @attempt("read " + name)
    def _():
        return bool(open(path, "rb").read(1))

for name, pid in given["processes"].items():
    for what in ("environ", "mem", "fd/0", "root/etc"):
        @attempt(f"{what} of the {name}")
        def _():
            if what == "root/etc":
                return bool(os.listdir(f"/proc/{pid}/root/etc"))
            descriptor = os.open(f"/proc/{pid}/{what}", os.O_RDONLY | os.O_NONBLOCK)
            return what != "environ" or bool(os.read(descriptor, 1))
    @attempt(f"signal the {name}")
    def _():
        os.kill(pid, 0)
    @attempt(f"trace the {name}")
    def _():
        called(117 if arm else 101, 0x4206, pid, 0, 0)  # PTRACE_SEIZE
        called(117 if arm else 101, 17, pid, 0, 0)

@attempt("change the database")
def _():
    connection = sqlite3.connect("file:" + given["database"] + "?mode=rw", uri=True, timeout=20)
    connection.execute("CREATE TABLE IF NOT EXISTS planted (x)")
    connection.commit()

@attempt("connect to the service")
def _():
    socket.create_connection(("127.0.0.1", given["port"]), 5).close()

@attempt("find a way out")
def _():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.connect(("192.0.2.1", 9))  # sends nothing

for path in ("/etc/planted-by-a-run", "/usr/planted-by-a-run", "/planted-by-a-run", "/dev/planted-by-a-run"):
    @attempt("write " + path.rpartition("/")[0] + "/")
    def _():
        open(path, "w").close()
        os.unlink(path)

@attempt("leave a setuid file")
def _():
    open("out/setuid", "w").close()
    os.chmod("out/setuid", 0o4755)
    return bool(os.stat("out/setuid").st_mode & 0o4000)

@attempt("make a setuid file")
def _():
    os.umask(0)
    os.close(os.open("out/made", os.O_CREAT | os.O_WRONLY, 0o6755))
    return bool(os.stat("out/made").st_mode & 0o6000)

@attempt("become root")
def _():
    return os.geteuid() != 0 and os.setresuid(0, 0, 0) is None

for name, number, arguments in (
    ("mount", 40 if arm else 165, (b"none", os.path.realpath("out").encode(), b"tmpfs", 0, None)),
    ("keyctl", 219 if arm else 250, (0, -3, 0)),
    ("bpf", 280 if arm else 321, (0, None, 0)),
    ("perf_event_open", 241 if arm else 298, (None, 0, -1, -1, 0)),
    ("io_uring_setup", 425, (1, ctypes.create_string_buffer(256))),
    ("userfaultfd", 282 if arm else 323, (1,)),
    ("clone3", 435, (None, 0)),
    ("openat2", 437, (-100, b"/", ctypes.create_string_buffer(24), 24)),
    ("chroot", 51 if arm else 161, (b"/",)),
    ("open a vsock", 198 if arm else 41, (40, 1, 0)),
):
    @attempt(name)
    def _():
        try:
            called(number, *arguments)
        except OSError as error:
            # EFAULT and EINVAL come from the call itself: it was not refused.
            if error.errno not in (14, 22, 7):
                raise

@attempt("make a user namespace")
def _():
    if os.fork() == 0:
        os._exit(0 if libc.unshare(0x10000000) == 0 else 1)
    return os.wait()[1] == 0

@attempt("give input to a terminal")
def _():
    import fcntl
    try:
        fcntl.ioctl(0, 0x5412, b"x")
    except OSError as error:
        return error.errno != 1

with open("/proc/self/status") as status:
    for line in status:
        if line.startswith(("CapEff", "CapPrm", "CapBnd", "CapAmb")) and int(line.split()[1], 16):
            won.append("keep " + line.split(":")[0])
print(json.dumps(won))
"""


def attack(files: Mapping[str, str], processes: Mapping[str, int], database: str, port: int) -> Sequence[str]:
    """Return the command that attacks these files, processes, database and port."""
    given = {"files": files, "processes": processes, "database": database, "port": port}
    return ["python3", "-I", "-c", SCRIPT, json.dumps(given)]
