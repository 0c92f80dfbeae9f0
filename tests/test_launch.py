"""``launch.py`` with processes that do not train: nothing may be left running, or hang."""
import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from types import SimpleNamespace

import pytest

import launch
from common import agent
from common.printer import Printer
from tests import groups
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python has from 3.10 on
FREE = ["-n", 2, "--start-timeout", 0]  # for programs that do not tell that they have met
SLEEP = ["python", "-c", "import time; time.sleep(100)"]
SAY = "import os, sys; role = os.environ['DMLC_ROLE'] + os.environ.get('DMLC_WORKER_ID', '')\n"


@pytest.fixture
def asleep():
    """Starts a group of 4 processes that sleep; returns ``launch.py``, and its members' pids."""
    started = []

    def begin(*flags, command=SLEEP):
        started.append(groups.start([*FREE, *flags], command))
        return started[-1], groups.wait_for_members(started[-1], 4)
    yield begin
    for launcher in started:
        launcher.kill()
        launcher.communicate()


def ended(launcher, members, limit=10):
    """As ``groups.finish``, after a check that all that was started is gone."""
    said = groups.finish(launcher, limit)
    groups.wait_until_gone([pid for pids in members.values() for pid in pids], 2)
    return said


def test_it_runs_all_roles_and_prints_what_the_workers_print():
    code = SAY + ("if 'worker' in role: print(role)\n"
                  "print('what', role, 'says', file=sys.stderr)")
    status, stdout, stderr = groups.run(FREE, ["python", "-c", code])
    assert status == 0
    assert sorted(stdout.split()) == ["worker0", "worker1"]
    assert sorted(stderr.splitlines()) == [
        "scheduler: what scheduler says", "server 0: what server says", "what worker0 says",
        "what worker1 says"]


def test_a_process_that_fails_is_named_with_its_last_words():
    code = SAY + ("import time\nif role != 'worker1': time.sleep(100)\n"
                  "print('first', file=sys.stderr); print('last words', file=sys.stderr)\n"
                  "sys.exit(5)")
    status, stdout, stderr = groups.run(FREE, ["python", "-c", code],
                                        env={**os.environ, "TOKEN": "not to be seen"})
    host = socket.gethostname()
    assert (status, stdout) == (5, "")
    assert f"launch.py: error: worker 1 on {host} left with status 5: last words" in stderr
    assert stderr.count("last words") == 1
    assert "not to be seen" not in stderr


@pytest.mark.parametrize(("stream", "status"), [("stdout", 2), ("stderr", 0)])
def test_output_that_cannot_be_written_ends_no_training(tmp_path, stream, status):
    code = SAY + ("import time\nfor _ in range(3): print('a'); print('b', file=sys.stderr); "
                  "sys.stdout.flush(); sys.stderr.flush(); time.sleep(0.6)\n"
                  "open(role, 'w')")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, os.path.join(ROOT, "launch.py"), *map(str, FREE), "--", "python", "-c",
             code], cwd=tmp_path, stdin=subprocess.DEVNULL, universal_newlines=True,
            timeout=groups.LIMIT, **{**streams, stream: full})
    assert done.returncode == status, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["scheduler", "server", "worker0", "worker1"]
    if stream == "stdout":
        assert "launch.py: error: standard output: No space left on device" in done.stderr


def test_a_reader_that_pauses_holds_up_nothing():
    """Where launch.py waited for it, all would take that for its end."""
    code = SAY + ("import time\n"
                  "for _ in range(80): time.sleep(0.1); print('.' * 2000, file=sys.stderr)")
    launcher = groups.start(FREE, ["python", "-c", code], preexec_fn=shrink_pipes)
    time.sleep(agent.SILENCE + 3)
    status, _, stderr = groups.finish(launcher)
    assert status == 0
    assert stderr.count("." * 2000) == 4 * 80


def shrink_pipes():
    for stream in (1, 2):
        fcntl.fcntl(stream, SET_PIPE_SIZE, 4096)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_by_two_signals_though_nobody_reads(number):
    code = SAY + "print('.' * 9999); sys.stdout.flush()\nimport time; time.sleep(100)"
    launcher = groups.start(FREE, ["python", "-c", code], preexec_fn=shrink_pipes)
    members = groups.wait_for_members(launcher, 4)
    time.sleep(1)
    for _ in range(2):
        launcher.send_signal(number)
        time.sleep(0.5)
    assert launcher.wait(10) == 128 + number
    assert ended(launcher, members)[1].startswith("....")


def test_a_hangup_is_ignored_under_nohup():
    launcher = groups.start(FREE, SLEEP, preexec_fn=lambda: signal.signal(signal.SIGHUP,
                                                                          signal.SIG_IGN))
    members = groups.wait_for_members(launcher, 4)
    launcher.send_signal(signal.SIGHUP)
    launcher.send_signal(signal.SIGTERM)
    assert ended(launcher, members)[0] == 128 + signal.SIGTERM


def test_a_working_directory_that_is_gone():
    folder = tempfile.mkdtemp()
    done = subprocess.run(["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', folder, sys.executable,
                           os.path.join(ROOT, "launch.py"), "-n", "1", "--", "x"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=groups.LIMIT)
    assert done.returncode == 2
    assert done.stderr == "launch.py: error: the working directory: No such file or directory\n"


def test_a_program_that_is_not_there():
    status, _, stderr = groups.run(FREE, ["no-such-program"])
    assert status == 127
    assert "no-such-program: No such file or directory" in stderr
    assert len(stderr.splitlines()) == 1


def test_those_that_do_not_meet_are_ended():
    status, _, stderr = groups.run(["-n", 2, "--start-timeout", 1], SLEEP)
    assert status == 1
    assert "worker 0" in stderr
    assert "has not met the others within 1 s" in stderr


@pytest.mark.parametrize("who", ["scheduler", "server", "worker 1"])
@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "does not go on: SIGSTOP")])
def test_one_that_is_lost_ends_all(asleep, who, number, words):
    launcher, members = asleep()
    os.kill(members[who][0], number)
    status, _, stderr = ended(launcher, members)
    assert status == 128 + signal.SIGKILL
    assert words in stderr
    assert who in stderr


def test_an_agent_that_is_killed_ends_all(asleep):
    launcher, members = asleep()
    os.kill(members["server"][1], signal.SIGKILL)
    status, _, stderr = ended(launcher, members)
    assert status == 1
    assert "out of reach" in stderr


@pytest.mark.slow
def test_an_agent_that_hangs_ends_all(asleep):
    launcher, members = asleep()
    os.kill(members["server"][1], signal.SIGSTOP)
    assert "is silent" in ended(launcher, members)[2]


def test_the_end_of_the_launcher_ends_all(asleep):
    launcher, members = asleep()
    launcher.kill()
    ended(launcher, members)


@pytest.mark.slow
def test_a_launcher_that_hangs_ends_all(asleep):
    launcher, members = asleep()
    launcher.send_signal(signal.SIGSTOP)
    groups.wait_until_gone([pid for pid, _ in members.values()], 15)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_those_that_have_not_met(asleep, number):
    launcher, members = asleep()
    launcher.send_signal(number)
    status, _, stderr = ended(launcher, members)
    assert status == 128 + number
    assert "Traceback" not in stderr


def test_a_process_that_is_lost_in_a_stop_ends_all():
    code = ("import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: print('heard'))\n"
            "fd = os.environ.get('LAUNCH_READY_FD'); os.write(int(fd), b'\\n')\n"
            "print('ready', flush=True)\nwhile True: time.sleep(0.1)")
    launcher = groups.start(["-n", 2, "--restarts", 1], ["python", "-uc", code])
    members = groups.wait_for_members(launcher, 4)
    assert [launcher.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    launcher.send_signal(signal.SIGTERM)
    assert [launcher.stdout.readline() for _ in range(2)] == ["heard\n"] * 2
    os.kill(members["server"][0], signal.SIGKILL)
    assert ended(launcher, members)[0] == 143


def test_what_processes_have_started_is_ended(asleep, tmp_path):
    code = ("import subprocess, sys\nchild = subprocess.Popen(['sleep', '100'])\n"
            f"open('{tmp_path}/%d' % child.pid, 'w'); child.wait()")
    launcher, members = asleep(command=["python", "-c", code])
    while len(os.listdir(tmp_path)) < 4:
        time.sleep(0.05)
    os.kill(members["worker 0"][0], signal.SIGKILL)
    ended(launcher, members)
    groups.wait_until_gone(map(int, os.listdir(tmp_path)))


def test_restarts_are_counted_and_resume(tmp_path):
    code = (SAY + "import time\n"
            "if role == 'worker0': open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + ';')\n"
            "if role != 'worker0': time.sleep(100)\n"
            "os.kill(os.getpid(), 9)")
    status, _, stderr = groups.run([*FREE, "--restarts", 2],
                                   ["python", "-c", code, tmp_path / "runs", "--overwrite"])
    assert status == 137
    assert (tmp_path / "runs").read_text() == "--overwrite;" + 2 * "--overwrite --resume;"
    for number in (1, 2):
        assert f"start again with --resume (restart {number} of 2)" in stderr
    assert len(stderr.splitlines()) == 3


def test_a_signal_without_a_name_is_one_too():
    number = signal.SIGRTMIN + 1
    status, _, stderr = groups.run([*FREE, "--restarts", 1], [
        "python", "-c", f"{SAY}if role == 'worker0': os.kill(os.getpid(), {number})\n"
        "import time; time.sleep(100)"])
    assert status == 128 + number
    assert f"was killed by signal {number}; all are ended, and start again" in stderr


@pytest.mark.parametrize("status", launch.FINAL)
def test_what_would_come_again_is_not_tried_again(status):
    _, _, stderr = groups.run([*FREE, "--restarts", 2],
                              ["python", "-c", f"import sys; sys.exit({status})"])
    assert f"left with status {status}" in stderr
    assert len(stderr.splitlines()) == 1


def test_one_that_does_not_leave_after_another_ends_all(monkeypatch):
    monkeypatch.setattr(launch, "LEAVING", 0.5)
    args = SimpleNamespace(hosts=None, address=None, port=None, num_servers=1, num_workers=2,
                           start_timeout=0, folder=os.getcwd())
    code = SAY + "import time\nif role != 'worker0': time.sleep(100)"
    with pytest.raises(launch.Lost, match="does not leave, although another one has"):
        launch.Group(args, [sys.executable, "-c", code], [], Printer()).run()


def test_servers_are_ended_when_no_worker_was_to_meet_any():
    code = SAY + "import time\nif 'worker' not in role: time.sleep(100)"
    begin = time.monotonic()
    assert groups.run(["-n", 2], ["python", "-c", code])[0] == 0
    assert time.monotonic() - begin < 20


def test_a_machine_that_is_not_reached_is_named(tmp_path, ssh):
    script = tmp_path / "hanging"
    script.write_text(f'#!/bin/sh\n[ $1 = localhost ] || exec sleep 100\nexec {ssh[-1]} "$@"\n')
    script.chmod(0o755)
    status, _, stderr = groups.run(["-n", 2, "--start-timeout", 2, "--ssh", script, "-H",
                                    "localhost,127.0.0.1"], SLEEP)
    assert status == 1
    assert "worker 1 on 127.0.0.1 cannot be reached within 2 s" in stderr


def test_names_of_machines_in_a_file_of_windows(tmp_path):
    (tmp_path / "hosts").write_text("alice # first\r\n\r\nbob\r\n", encoding="utf-8-sig")
    assert launch._hosts(str(tmp_path / "hosts")) == ["alice", "bob"]
    (tmp_path / "hosts").write_text("alice\nbob slots=4\n")
    with pytest.raises(argparse.ArgumentTypeError, match="got 'bob slots=4'"):
        launch._hosts(str(tmp_path / "hosts"))


@pytest.fixture
def ssh(tmp_path):
    """Flags for a group that is started by what stands in for ssh."""
    return groups.by_ssh(tmp_path / "ssh")


def test_by_ssh(ssh):
    code = SAY + "if 'worker' in role: print(role, os.getcwd())"
    status, stdout, stderr = groups.run([*FREE, *ssh], ["python", "-c", code])
    assert (status, stderr) == (0, "")
    assert sorted(stdout.splitlines()) == [f"worker{number} {os.getcwd()}" for number in (0, 1)]


def test_machines_take_turns(tmp_path, ssh):
    """What stands in for ssh notes where it goes; both names are of this machine."""
    script = tmp_path / "noting"
    script.write_text(f'#!/bin/sh\necho $1 >> {tmp_path}/hosts\nexec {ssh[-1]} "$@"\n')
    script.chmod(0o755)
    status, _, stderr = groups.run(["-n", 3, "-s", 2, "--start-timeout", 0, "--ssh", script, "-H",
                                    "localhost,127.0.0.1"], ["true"])
    assert (status, stderr) == (0, "")
    assert Counter((tmp_path / "hosts").read_text().split()) == {"localhost": 3, "127.0.0.1": 2}


@pytest.mark.parametrize("line", ['["err"]', '["exit", "0"]', '[["out"]]', "{}", "17", "Welcome"])
def test_what_ssh_prints_is_not_taken_for_an_agents_words(ssh, line):
    script = ssh[-1]
    script.write_text(script.read_text().replace("import os,", f"print({line!r}, flush=True)\n"
                                                 "import os,", 1))
    status, stdout, stderr = groups.run([*FREE, *ssh], ["true"])
    assert (status, stdout) == (0, "")
    assert set(stderr.splitlines()) == {line, f"server 0: {line}"}


def test_an_ssh_that_drops_ends_all(ssh):
    launcher = groups.start([*FREE, *ssh], SLEEP)
    end = time.monotonic() + 30
    there = []
    while len(there) < 3 and time.monotonic() < end:  # the scheduler is here
        shells = groups.children(launcher.pid)
        there = [pid for shell in shells for agent in groups.children(shell)
                 for pid in groups.children(agent)]
        time.sleep(0.05)
    assert len(there) == 3
    os.kill(shells[-1], signal.SIGKILL)
    status, _, stderr = groups.finish(launcher, 10)
    assert status == 1
    assert "worker 1 on localhost is out of reach" in stderr
    groups.wait_until_gone([*there, *shells])


def test_two_jobs_get_two_ports_and_a_scheduler_can_listen():
    with launch._free_port(launch.LOOPBACK, None) as one, \
            launch._free_port(launch.LOOPBACK, None) as other, socket.socket() as scheduler:
        assert one != other
        scheduler.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        scheduler.bind((launch.LOOPBACK, one))
        scheduler.listen()
        with pytest.raises(ValueError, match="give another --port"), \
                launch._free_port(launch.LOOPBACK, one):
            pass
        if sys.platform == "linux":  # there it is refused also before a scheduler listens
            with pytest.raises(ValueError, match="in use: give another --port"), \
                    launch._free_port(launch.LOOPBACK, other):
                pass


@pytest.mark.parametrize(("flags", "command", "words"), [
    (["-n", 2], [], "there is nothing to run"),
    (["-n", 0], SLEEP, "at least 1"),
    ([], SLEEP, "-n"),
    (["-n", 2, "-H", "a b"], SLEEP, "expected machines"),
    (["-n", 2, "-H", "-oProxyCommand=x"], SLEEP, "expected"),
    (["-n", 2, "-H", sys.executable], SLEEP, "expected machines"),
    (["-n", 2, "-H", "localhost", "--ssh", " "], SLEEP, "--ssh: expected the command"),
    (["-n", 2, "-H", "no-such-host.invalid"], SLEEP, "no-such-host.invalid"),
    (["-n", 2, "-H", "a..b"], SLEEP, "--hosts: a..b: not the name of a machine"),
    (["-n", 2, "--address", "no-such-host.invalid"], SLEEP, "--address: no-such-host.invalid"),
    (["-n", 2, "--address", "192.0.2.1"], SLEEP, "give another --address"),
    (["-n", 2, "--restarts", 1], [*SLEEP, "--load_epoch=3"], "--load-epoch"),
])
def test_bad_flags_are_refused(flags, command, words):
    status, stdout, stderr = groups.run(flags, command)
    assert (status, stdout) == (2, "")
    assert words in stderr
    assert len(stderr.splitlines()) == 1


def test_help_needs_no_command():
    status, stdout, _ = groups.run(["--help"], [])
    assert status == 0
    assert "--restarts" in stdout


def test_the_agent_needs_python_alone(tmp_path):
    shutil.copy(os.path.join(ROOT, "common", "agent.py"), tmp_path)
    done = subprocess.run([sys.executable, "-ES", "-c", "import agent"], cwd=tmp_path,
                          stderr=subprocess.PIPE, universal_newlines=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_has_just_ended_keeps_its_status_when_it_is_to_end():
    ended = object.__new__(agent.Agent)
    ended.process = subprocess.Popen(["sh", "-c", "exit 3"])
    os.waitid(os.P_PID, ended.process.pid, os.WEXITED | os.WNOWAIT)
    ended._obey(b"T")
    assert ended._ended() == 3
