"""A program that runs one command and outlives nothing: one per server and per job of the process runtime.

It runs by path as `python -I -S supervisor.py --nv-eval INVOCATION NAME KIND`, so it is ready in about 40 ms, and it
imports nothing but the standard library. The arguments are a mark for `sweep`; what to run comes as one JSON line on
standard input (`Spec`), because that is the one way in that shows nowhere.

- Whatever the command leaves behind becomes a child of this process (PR_SET_CHILD_SUBREAPER), daemons included.
- When the launcher dies (its pidfd, or end of file on standard input) the whole subtree gets SIGKILL at once.
- The line `stop` or SIGTERM: SIGTERM to the whole subtree, SIGKILL after the grace time. The line `kill`: SIGKILL.
- When the command ends by itself, what is left of its subtree gets SIGKILL.
- Output goes to the log from the first byte, with secret values replaced; the middle of a very long one is left out.
- When nothing is left and the log is complete, the exit record is written: a file, and a JSON line on standard output.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence

MARK = "--nv-eval"
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
REPLACEMENT = b"***"
LOG_LIMIT = 200 * 2**20
LOG_END = 2**20
"""Bytes. The middle of a log beyond the limit is left out; of its beginning half the limit stays, of its end this."""
POLL = 0.02
"""Seconds between two looks at a subtree that is ending."""


class Redactor:
    """Replaces secret values in a stream of bytes, also where a value is cut by the end of a chunk."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be shown by now. A tail that may be the beginning of a secret is kept for the next call."""
        data = self._held + chunk
        cut = self._cut(data)
        self._held = data[cut:]
        return self._replace(data[:cut])

    def flush(self) -> bytes:
        """The rest, when nothing more comes."""
        data, self._held = self._held, b""
        return self._replace(data)

    def _replace(self, data: bytes) -> bytes:
        for secret in self._secrets:
            data = data.replace(secret, REPLACEMENT)
        return data

    def _cut(self, data: bytes) -> int:
        """Where the held tail begins; never inside a whole secret."""
        cut = len(data) - max((_overlap(data, secret) for secret in self._secrets), default=0)
        for secret in self._secrets:
            begin = data.find(secret, max(0, cut - len(secret) + 1))
            if 0 <= begin < cut < begin + len(secret):
                cut = begin + len(secret)
        return cut


def _overlap(data: bytes, secret: bytes) -> int:
    """Length of the longest end of `data` that begins `secret` without being all of it."""
    longest = min(len(data), len(secret) - 1)
    return next((n for n in range(longest, 0, -1) if data.endswith(secret[:n])), 0)


class Spec:
    """What to run; times are seconds.

    `hold_fd` is a bound socket that keeps the server's port from everybody else, `lock_fds` the locks on its GPUs,
    `cgroup` the folder of a control group of its own, where there is one.
    """

    def __init__(
        self,
        *,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        log: str,
        record: str,
        grace: float,
        parent: int,
        hold_fd: int | None,
        lock_fds: list[int],
        cgroup: str | None,
        secrets: list[str],
    ) -> None:
        self.argv, self.env, self.cwd = argv, env, cwd
        self.log, self.record = log, record
        self.grace, self.parent, self.hold_fd, self.lock_fds = grace, parent, hold_fd, lock_fds
        self.cgroup = cgroup
        self.secrets = [secret.encode() for secret in secrets]


class LogFile:
    """A file that is appended to and never grows beyond a limit in bytes. A full disk loses lines, nothing else."""

    def __init__(self, path: str, limit: int = LOG_LIMIT, end: int = LOG_END) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._limit, self._end = limit, end
        self._left_out = 0
        self._note = b""

    def write(self, data: bytes) -> None:
        """Append."""
        try:
            while data:
                data = data[os.write(self.fd, data) :]
            if os.fstat(self.fd).st_size > self._limit:
                self._leave_out_middle()
        except OSError:
            return

    def _leave_out_middle(self) -> None:
        """Between two whole lines, if lines are shorter than what is kept of the end."""
        size, head = os.fstat(self.fd).st_size, self._limit // 2
        end = os.pread(self.fd, self._end, size - self._end)
        end = end[end.find(b"\n") + 1 :]
        self._left_out += size - head - len(self._note) - len(end)
        self._note = f"\n[... {self._left_out} bytes left out ...]\n".encode()
        os.ftruncate(self.fd, head)
        os.write(self.fd, self._note + end)


class Log:
    """The command's output on its way into the log file."""

    def __init__(self, path: str, secrets: Sequence[bytes]) -> None:
        self._file = LogFile(path)
        self._redactor = Redactor(secrets)
        self._recent = b""
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.dup2(self._file.fd, 2)

    def pump(self) -> None:
        """Move what is there into the file."""
        while True:
            try:
                chunk = os.read(self.read_fd, 65536)
            except BlockingIOError:
                return
            self._recent = (self._recent + chunk)[-4096:]
            self._file.write(self._redactor.feed(chunk))

    def finish(self) -> None:
        """Write what is left when nobody can write any more."""
        self.pump()
        self._file.write(self._redactor.flush())

    def says_port_in_use(self) -> bool:
        """Whether the last output blames a port that is taken."""
        recent = self._recent.lower()
        return b"address already in use" in recent or b"eaddrinuse" in recent or b"errno 98" in recent


class Process:
    """One process of the subtree, identified by pid and start time so that a reused pid is never hit."""

    def __init__(self, pid: int, parent: int, start: str, state: str = "") -> None:
        self.pid, self.parent, self.start, self.state = pid, parent, start, state

    def signal(self, number: int) -> None:
        """Send a signal to this very process, if it still exists."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError as error:
            if error.errno != errno.ESRCH and self._is_there():
                os.kill(self.pid, number)  # no pidfds here (old kernel, some sandboxes): check, then hope
            return
        try:
            if self._is_there():
                signal.pidfd_send_signal(descriptor, number)
        except OSError:
            return
        finally:
            os.close(descriptor)

    def _is_there(self) -> bool:
        now = read_process(self.pid)
        return now is not None and now.start == self.start


def read_process(pid: int) -> Process | None:
    """The process with this pid, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib would double the start time
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[1]), fields[19].decode(), fields[0].decode())


def descendants(root: int) -> list[Process]:
    """All processes below `root`, zombies included, by one reading of /proc."""
    listed = [read_process(int(name)) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    children: dict[int, list[Process]] = {}
    for process in filter(None, listed):
        children.setdefault(process.parent, []).append(process)
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += [process.pid for process in below]
    return found


class Supervisor:
    """Runs one command from its start until nothing of its subtree is left."""

    def __init__(self, spec: Spec, commands: bytes) -> None:
        self._spec = spec
        self._log = Log(spec.log, spec.secrets)
        self._poll = select.poll()
        self._wake = _signal_pipe()
        self._parent = open_parent(spec.parent)
        self._child = 0
        self._status: int | None = None
        self._error = ""
        self._why = "exited"
        self._started = 0.0
        self._deadline: float | None = None
        self._commands = commands

    def run(self) -> None:
        """Start the command and stay until the subtree is empty."""
        for descriptor in (0, self._wake, self._log.read_fd, *([self._parent] if self._parent is not None else [])):
            self._poll.register(descriptor, select.POLLIN)
        try:
            if self._parent is None:
                self._why = "launcher_died"
            else:
                self._start()
                self._obey()
                self._watch()
        finally:
            self._kill_all()
            self._log.finish()
            self._report()

    def _start(self) -> None:
        self._started = time.time()
        self._child, self._error = _spawn(self._spec, self._log.write_fd)

    def _watch(self) -> None:
        while not self._is_over(children_left=self._reap()):
            for descriptor, _ in self._poll.poll(self._patience()):
                self._handle(descriptor)

    def _is_over(self, *, children_left: bool) -> bool:
        """Whether what is left has to be killed now. After a polite request all of the subtree has the grace time."""
        if self._why in {"killed", "launcher_died"}:
            return True
        if self._deadline is not None:
            return not children_left or time.monotonic() >= self._deadline
        return self._status is not None and not self._start_without_hold()

    def _patience(self) -> int | None:
        """Milliseconds until the grace time is over; None while nobody has asked for the end."""
        return None if self._deadline is None else max(1, int((self._deadline - time.monotonic()) * 1000))

    def _handle(self, descriptor: int) -> None:
        if descriptor == self._log.read_fd:
            self._log.pump()
        elif descriptor == self._wake:
            if signal.SIGTERM in os.read(self._wake, 4096):
                self._stop()
        elif descriptor == 0:
            self._listen()
        else:
            self._why = "launcher_died"

    def _listen(self) -> None:
        """Read commands of the launcher; end of file means that it is dead."""
        data = os.read(0, 4096)
        if not data:
            self._why = "launcher_died"
        self._commands += data
        self._obey()

    def _obey(self) -> None:
        *lines, self._commands = self._commands.split(b"\n")
        if b"kill" in lines:
            self._why = "killed"
        elif b"stop" in lines:
            self._stop()

    def _stop(self) -> None:
        if self._deadline is None:
            self._why = "stopped"
            self._deadline = time.monotonic() + self._spec.grace
            for process in descendants(os.getpid()):
                process.signal(signal.SIGTERM)

    def _reap(self) -> bool:
        """Collect ended children; False when there is no child any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._child:
                self._status = status

    def _start_without_hold(self) -> bool:
        """A server that cannot share its port with our hold gets a second start without it, once."""
        if self._spec.hold_fd is None or self._why != "exited" or not self._failed_on_port():
            return False
        os.close(self._spec.hold_fd)
        self._spec.hold_fd = None
        self._status = None
        self._start()
        return True

    def _failed_on_port(self) -> bool:
        self._log.pump()
        return os.waitstatus_to_exitcode(self._status or 0) > 0 and self._log.says_port_in_use()

    def _kill_all(self) -> None:
        """SIGKILL until nothing is left. The command's groups go first: they cost no search."""
        if self._spec.cgroup is not None:
            _tell_kernel(self._spec.cgroup, "cgroup.kill", "1")
        if self._child and self._status is None:
            try:
                os.killpg(self._child, signal.SIGKILL)
            except OSError:
                pass
        while self._reap():
            for process in descendants(os.getpid()):
                process.signal(signal.SIGKILL)
            self._log.pump()
            select.select([self._wake], [], [], POLL)
            _drain(self._wake)
        if self._spec.cgroup is not None:
            _remove_group(self._spec.cgroup)

    def _report(self) -> None:
        record = {
            "pid": self._child,
            "exit_code": None if self._status is None or self._error else os.waitstatus_to_exitcode(self._status),
            "error": self._error,
            "why": self._why,
            "started": self._started,
            "ended": time.time(),
        }
        line = json.dumps(record) + "\n"
        try:
            _write_atomically(self._spec.record, line)
        except OSError:
            pass  # a full disk: the launcher still gets the line
        try:
            os.write(1, line.encode())
        except OSError:
            pass  # the launcher is gone: the file tells


def _tell_kernel(cgroup: str, file: str, text: str) -> None:
    """Write into a file of a control group. Groups are a help; that one cannot be used is no failure."""
    try:
        with open(f"{cgroup}/{file}", "w") as control:  # noqa: PTH123
            control.write(text)
    except OSError:
        return


def _remove_group(cgroup: str) -> None:
    try:
        os.rmdir(cgroup)  # noqa: PTH106
    except OSError:
        return


def _spawn(spec: Spec, output: int) -> tuple[int, str]:
    """Start the command in a session of its own; returns its pid and why it could not be executed, if so."""
    read_end, write_end = os.pipe()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(spec, output, supervisor)
        except BaseException as error:  # this fork must never run the supervisor's code
            os.write(write_end, _why_not(spec, error).encode())
        finally:
            os._exit(127)
    os.close(write_end)
    problem = b""
    while part := os.read(read_end, 4096):
        problem += part
    os.close(read_end)
    return pid, problem.decode(errors="replace")


def _why_not(spec: Spec, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and not os.path.isdir(spec.cwd):  # noqa: PTH112
        return f"folder {spec.cwd} does not exist"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot execute {spec.argv[0]}: {os.strerror(error.errno)}"
    return f"cannot execute {spec.argv[0]}: {type(error).__name__}"


def _become(spec: Spec, output: int, supervisor: int) -> None:
    """In the fork: turn into the command."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:
        os._exit(127)
    if spec.cgroup is not None:
        _tell_kernel(spec.cgroup, "cgroup.procs", "0")
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, target)
    os.chdir(spec.cwd)
    os.execvpe(spec.argv[0], spec.argv, spec.env)  # noqa: S606 - the program's purpose


def _signal_pipe() -> int:
    """A descriptor that becomes readable, with the signal's number, on SIGTERM and when a child ends."""
    read_end, write_end = socket.socketpair()
    read_end.setblocking(False)
    write_end.setblocking(False)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(write_end.detach(), warn_on_full_buffer=False)
    return read_end.detach()


def _drain(descriptor: int) -> None:
    try:
        os.read(descriptor, 4096)
    except BlockingIOError:
        return


def open_parent(expected: int) -> int | None:
    """A descriptor that becomes readable when the launcher dies; None if it is dead already.

    Without pidfds (old kernels, some sandboxes) that is standard input alone.
    """
    try:
        descriptor = os.pidfd_open(expected)
    except OSError as error:
        if error.errno == errno.ESRCH:
            return None
        descriptor = 0
    # Checked after opening: had the launcher died before, its pid might belong to somebody else by now.
    return descriptor if os.getppid() == expected else None


def _write_atomically(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    os.replace(temporary, path)  # noqa: PTH105


def _read_spec() -> tuple[Spec, bytes] | None:
    """The first line of standard input and the commands that came with it; None without a whole line."""
    data = b""
    while b"\n" not in data:
        chunk = os.read(0, 65536)
        if not chunk:
            return None
        data += chunk
    line, _, commands = data.partition(b"\n")
    spec = Spec(**json.loads(line))
    for descriptor in (*spec.lock_fds, *([] if spec.hold_fd is None else [spec.hold_fd])):
        os.set_inheritable(descriptor, False)
    return spec, commands


def main() -> int:
    """Run what standard input asks for."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    request = _read_spec()
    if request is not None:
        Supervisor(*request).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
