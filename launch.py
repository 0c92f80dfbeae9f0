"""Trains on several machines, or in several processes of one: starts them all, and watches them.

    python launch.py -n 2 -- python train_mnist.py --add-stn --kv-store dist_sync
    python launch.py -n 8 -s 2 -H alice,bob -- python train_mnist.py --add-stn --kv-store dist_sync
"""
import argparse
import collections
import contextlib
import json
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

from common import agent, cli, files
from common.printer import Printer

LOOPBACK = "127.0.0.1"
TICK = 0.2  # seconds
HELD = 0.5  # seconds that a line of an error stream is held back: it may be a process's last words
LEAVING = 60  # seconds in which all have to leave once one worker is done
ENDING = 2  # seconds for an agent to kill its process and say so
STOPPED = (130, 143)  # exit statuses after Ctrl-C and SIGTERM
# What an agent says, and the kinds of words behind it; any other line is of ssh or the shell there.
SAID = {"out": [str], "err": [str], "ready": [str], "beat": [], "stopped": [int], "exit": [int]}
FINAL = (2, 3)  # exit statuses that would come again: bad input, training became non-finite
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10"


def add_flags(parser):
    """Adds the flags of this script to a parser."""
    flag = parser.add_argument
    flag("-n", "--num-workers", type=cli.number(int, least=1, most=1000), required=True,
         help="processes that train")
    flag("-s", "--num-servers", type=cli.number(int, least=1, most=1000), default=1,
         help="processes that add up what the workers send them")
    flag("-H", "--hosts", type=_hosts, metavar="HOSTS",
         help="machines to run on, by ssh: names with commas, or a file with one a line; workers "
              "and servers take turns; by default all run on this one")
    flag("--ssh", default=SSH, help="the command that reaches a machine")
    flag("--python", default=sys.executable, help="the Python there")
    flag("--address", help="of this machine, as the others reach it; by default 127.0.0.1, with "
                           "--hosts the one on the way there")
    flag("--interface", help="the network interface of the other machines, such as eth0; by "
                             "default that of the address of each")
    flag("--port", type=cli.number(int, least=1, most=65535),
         help="where the processes meet; by default a free one")
    flag("--start-timeout", type=cli.number(float, least=0), default=120, metavar="SECONDS",
         help="in which all workers have to meet; 0 for a program that does not tell")
    flag("--stop-timeout", type=cli.number(float, least=0), default=60, metavar="SECONDS",
         help="for a checkpoint, after Ctrl-C or SIGTERM")
    flag("--restarts", type=cli.number(int, least=0), default=0, metavar="N",
         help="start again with --resume, that often at most, when a process is lost")


def check(args, command):
    """Raises ValueError for flags that do not fit together."""
    if not command:
        raise ValueError("there is nothing to run: put it behind --, as in launch.py -n 2 -- "
                         "python train_mnist.py --kv-store dist_sync")
    if args.restarts and "--load-epoch" in _flags_of(command):
        raise ValueError("--restarts goes on by --resume, which does not go with --load-epoch")
    if not args.ssh.strip():
        raise ValueError(f"--ssh: expected the command that reaches a machine, such as {SSH!r}")
    if args.interface and not args.hosts:
        raise ValueError("--interface is one of other machines: it needs --hosts")


def _hosts(text):
    if os.path.isfile(text):
        with open(text, encoding="utf-8-sig", errors="surrogateescape") as file:
            hosts = [line.split("#")[0].strip() for line in file]
    else:
        hosts = [host.strip() for host in text.split(",")]
    hosts = [host for host in hosts if host]
    unfit = [host for host in hosts
             if host.startswith("-") or len(host.split()) > 1 or not host.isprintable()]
    if unfit or not hosts:
        raise argparse.ArgumentTypeError(f"expected machines such as alice,bob, or a file with one "
                                         f"a line, got {(unfit or [text])[0]!r}")
    return hosts


def _flags_of(command):
    return [word.partition("=")[0].replace("_", "-") for word in command]


def again(command):
    """The command that goes on with what a command has begun."""
    return command if "--resume" in command else [*command, "--resume"]


class Lost(Exception):
    """A process that is lost, or leaves in error: ``status`` is that to leave with."""

    def __init__(self, message, status, final=False):
        super().__init__(message)
        self.status, self.final = status, final


class Process:
    """One process of the group, and what is known of it.

    Args:
        role: "scheduler", "server" or "worker".
        number: of its role, from 0.
        host: the machine, None for this one.
        args: the flags.
        environment, command: of the process.
    """

    def __init__(self, role, number, host, args, environment, command):
        self.role, self.host = role, host
        self.name = role if role == "scheduler" else f"{role} {number}"
        self.where = f"{self.name} on {host or socket.gethostname()}"
        program = [sys.executable, agent.__file__]
        if host:
            program = [*shlex.split(args.ssh), host,
                       "exec " + shlex.join([args.python, os.path.abspath(agent.__file__)])]
        self.agent = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT if host else None,
                                      start_new_session=True)
        self.heard = None if host else time.monotonic()  # that ssh connects takes its time
        self.ready, self.status = False, None
        self.partial, self.last, self.held = b"", "", collections.deque()
        self.tell(json.dumps({"environment": environment, "command": command,
                              "folder": args.folder}))

    def tell(self, line):
        """Writes to the agent, if it is still there."""
        if not self.agent.stdin:
            return
        with contextlib.suppress(OSError):
            self.agent.stdin.write(line.encode() + b"\n")
            self.agent.stdin.flush()

    def hang_up(self):
        """Ends what the agent hears, at which it kills its process."""
        if self.agent.stdin:
            with contextlib.suppress(OSError):
                self.agent.stdin.close()
            self.agent.stdin = None

    def end(self, seconds):
        """Waits for the end of the agent, and kills it if it takes longer: its process dies, too.
        """
        try:
            self.agent.communicate(timeout=max(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(self.agent.pid, signal.SIGKILL)
            self.agent.wait()

    def read(self):
        """What the agent has said, a list of lists; None at its end."""
        content = os.read(self.agent.stdout.fileno(), 2**16)
        self.heard = time.monotonic()
        if not content:
            return None
        *lines, self.partial = (self.partial + content).split(b"\n")
        return [_parsed(line) for line in lines]

    def lost(self, what, status=1, final=False):
        """The error that this process is lost."""
        words = f": {self.last}" if self.last else ""
        return Lost(f"{self.where} {what}{words}", status, final)


def _parsed(line):
    try:
        what, *words = json.loads(line.decode())
        if SAID[what] == list(map(type, words)):
            return [what, *words]
    except (ValueError, TypeError, KeyError):
        pass
    return ["err", line.decode(errors="replace")]


def _name_of(number):
    """The name of a signal; those for real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Group:
    """All processes of one training.

    Args:
        args: the flags.
        command: what each of them runs.
        signals: a list that the handler of Ctrl-C and SIGTERM appends to.
        printer: of what they print.
    """

    def __init__(self, args, command, signals, printer):
        self.args, self.command, self.signals, self.printer = args, command, signals, printer
        self.processes, self.selector = [], selectors.DefaultSelector()
        self.begun = self.beaten = time.monotonic()
        self.deadline, self.why = None, None
        self.stopping, self.over = 0, False

    def run(self):
        """Runs all to their end; returns 0, or the status after a stop.

        Raises ``Lost`` if one is lost. Whatever happens, nothing is left running.
        """
        address = self.args.address
        address = _address_of(address, "--address") if address else _own_address(self.args.hosts)
        with _free_port(address, self.args.port) as port:
            try:
                self._start(address, port)
                while not self.over and any(one.status is None for one in self.processes):
                    self._hear()
                    self._obey()
                    self._check()
                self._print_held(0)
            finally:
                self._end()
        return self.stopping

    @property
    def workers(self):
        return [one for one in self.processes if one.role == "worker"]

    @property
    def _alone(self):
        """Whether the workers are done without having met, as with --help: servers would wait."""
        return all(worker.status == 0 and not worker.ready for worker in self.workers)

    def _start(self, address, port):
        for role, count in (("scheduler", 1), ("server", self.args.num_servers),
                            ("worker", self.args.num_workers)):
            for number in range(count):
                self._add(role, number, address, port)

    def _add(self, role, number, address, port):
        hosts = self.args.hosts if role != "scheduler" else None
        host = hosts[number % len(hosts)] if hosts else None
        environment = {"DMLC_ROLE": role, "DMLC_PS_ROOT_URI": address,
                       "DMLC_PS_ROOT_PORT": str(port),
                       "DMLC_NUM_WORKER": str(self.args.num_workers),
                       "DMLC_NUM_SERVER": str(self.args.num_servers)}
        if role == "worker":
            environment["DMLC_WORKER_ID"] = str(number)
        if host and self.args.interface:
            environment["DMLC_INTERFACE"] = self.args.interface
        else:
            environment["DMLC_NODE_HOST"] = _address_of(host) if host else address
        one = Process(role, number, host, self.args, environment, self.command)
        self.processes.append(one)
        self.selector.register(one.agent.stdout, selectors.EVENT_READ, one)

    def _hear(self):
        for key, _ in self.selector.select(TICK):
            one = key.data
            said = one.read()
            for words in said or []:
                self._take(one, *words)
            if said is None:
                self.selector.unregister(key.fileobj)
                if one.status is None:
                    raise one.lost("is out of reach: its connection has ended")
        if time.monotonic() - self.beaten > agent.BEAT:
            self.beaten = time.monotonic()
            for one in self.processes:
                one.tell("")
        self._print_held(HELD)

    def _take(self, one, what, *words):
        if what == "out" and one.role == "worker":
            self.printer.out(words[0])
        elif what in ("out", "err"):
            one.last = words[0]
            one.held.append((time.monotonic(), words[0]))
        elif what == "ready":
            one.ready = True
        elif what == "stopped":
            raise one.lost(f"does not go on: {_name_of(words[0])}", 128 + signal.SIGKILL)
        elif what == "exit":
            one.status = words[0]
            self._left(one)

    def _left(self, one):
        """Judges how a process has left."""
        if self.stopping or one.role == "worker" and one.status in STOPPED:
            self.stopping = self.stopping or one.status
            self._give(self.args.stop_timeout, "does not stop")
            if one is not self.workers[0]:
                one.held.clear()  # it says the same
            # Servers do not hear of a stop; and for one that is lost the others would wait.
            lost = one.role != "worker" or one.status not in (0, *STOPPED)
            self.over = lost or all(worker.status is not None for worker in self.workers)
        elif one.status < 0:
            raise one.lost(f"was killed by {_name_of(-one.status)}", 128 - one.status)
        elif one.status:
            raise one.lost(f"left with status {one.status}", one.status, one.status in FINAL)
        else:
            self._give(LEAVING, "does not leave, although another one has")
            if self._alone:
                self.deadline = min(self.deadline, time.monotonic() + ENDING)

    def _give(self, seconds, why):
        """Sets the time in which all have to leave."""
        if self.deadline is None:
            self.deadline, self.why = time.monotonic() + seconds, why

    def _obey(self):
        """Passes on a signal; a second one, or one before all have met, ends them at once."""
        if not self.signals:
            return
        if self.stopping or not all(one.ready for one in self.workers) or len(self.signals) > 1:
            self.over = True
        self.stopping = 128 + self.signals.pop(0)
        self._give(self.args.stop_timeout, "does not stop")
        for one in self.workers:
            one.tell("T")

    def _check(self):
        """Raises ``Lost`` if a process is silent or late."""
        now = time.monotonic()
        running = [one for one in self.processes if one.status is None]
        for one in running:
            if one.heard and now - one.heard > agent.SILENCE:
                raise one.lost(f"is silent for {agent.SILENCE} s")
        if running and self.deadline is not None and now > self.deadline:
            if not self._alone:
                raise running[-1].lost(self.why)
            self.over = True
        timeout = self.args.start_timeout
        late = [one for one in self.workers if one.status is None and not one.ready]
        if timeout and late and now - self.begun > timeout:
            unheard = [one for one in running if one.heard is None]
            raise (unheard or late)[0].lost(
                f"{'cannot be reached' if unheard else 'has not met the others'} within "
                f"{timeout:g} s (--start-timeout)")

    def _print_held(self, age):
        for one in self.processes:
            while one.held and time.monotonic() - one.held[0][0] >= age:
                line = one.held.popleft()[1]
                self.printer.err(line if one.role == "worker" else f"{one.name}: {line}")

    def _end(self):
        """Kills what is still running."""
        for one in self.processes:
            one.hang_up()
        end = time.monotonic() + ENDING
        for one in self.processes:
            one.end(end - time.monotonic())


def _own_address(hosts):
    """The address at which processes on some machines reach this one."""
    if not hosts:
        return LOOPBACK
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_address_of(hosts[0]), 9))  # sends nothing
        return probe.getsockname()[0]


def _address_of(host, flag="--hosts"):
    name = host.rpartition("@")[2]
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise ValueError(f"{flag}: {name}: {error.strerror}") from None
    except UnicodeError:
        raise ValueError(f"{flag}: {name}: not the name of a machine") from None


@contextlib.contextmanager
def _free_port(address, port):
    """Yields a port that no other launch.py takes meanwhile.

    Linux lets a process listen on a port that another one holds without listening. It lets another
    one hold it too; but not have a socket of the same name.
    """
    with socket.socket() as holder, socket.socket(socket.AF_UNIX) as name:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((address, port or 0))
            if sys.platform == "linux":
                name.bind(f"\0launch.py {address}:{holder.getsockname()[1]}")
        except OSError as error:
            raise ValueError(f"{address}:{port or 'any port'}: {error.strerror}: give another "
                             f"{'--port' if port else '--address'}") from None
        port = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()
        yield port


def main():
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    parser = cli.Parser(prog="launch.py", description=(__doc__ or "").partition("\n")[0],
                        usage="launch.py -n WORKERS [flags] -- COMMAND ...")
    add_flags(parser)
    args, command = parser.parse_args(words[:cut]), words[cut + 1:]
    check(args, command)
    if command[0] in ("python", "python3"):
        command[0] = args.python
    with files.name_os_errors("the working directory"):
        args.folder = os.getcwd()
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
            signal.signal(number, lambda number, _: signals.append(number))
    printer = Printer()  # with a thread, as all would be ended while this waits for a reader
    try:
        status = run(args, command, signals, printer)
    finally:
        printer.close()
        while not printer.wait(ENDING) and not signals:
            pass
    if printer.error and not status:
        raise printer.error
    return status


def run(args, command, signals, printer):
    """Trains, with restarts; returns the exit status. The arguments are those of ``Group``."""
    left = args.restarts
    while True:
        group = Group(args, command, signals, printer)
        try:
            return group.run()
        except Lost as lost:
            if lost.final or not left or signals or group.stopping:
                printer.err(f"launch.py: error: {cli.one_line(lost)}; all are ended")
                return lost.status
            command, left = again(command), left - 1
            printer.err(f"launch.py: {cli.one_line(lost)}; all are ended, and start again with "
                        f"--resume (restart {args.restarts - left} of {args.restarts})")


if __name__ == "__main__":
    cli.run(main)
