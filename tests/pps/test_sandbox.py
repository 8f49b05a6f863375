"""The sandbox with real processes."""

import random
import sys
import time

import psutil
import pytest

from pachd.pps.limits import Limits
from pachd.pps.sandbox import Failed, Sandbox, host_environment


@pytest.fixture
def box(tmp_path):
    box = Sandbox(tmp_path / "box", str(tmp_path / "secret"))
    (box.pfs / "out").mkdir()
    yield box
    box.close()


def run(box, script, timeout=120.0, stdin=None, cwd=""):
    lines = []
    code = box.run(["bash", "-c", script], stdin, host_environment(), cwd, timeout, lines.append)
    return code, lines


def test_pfs_is_its_own_and_the_rest_is_read_only(box):
    code, lines = run(box, "echo x > /pfs/out/f; touch /usr/no 2>/dev/null || echo ro; touch /tmp/mine && echo tmp")
    assert (code, lines) == (0, [b"ro", b"tmp"])
    assert (box.pfs / "out" / "f").read_text() == "x\n"


def test_the_python_of_pachd_is_first(box):
    code, lines = run(box, "command -v python3; python3 -c 'import google.protobuf, pachd; print(1)'")
    assert code == 0
    assert lines[1] == b"1"
    assert lines[0].decode().startswith(sys.prefix)


def test_exit_code_stdin_and_working_dir(box):
    assert run(box, "cat; exit 3", stdin=b"hello\nthere") == (3, [b"hello", b"there"])
    assert run(box, "pwd", cwd="/pfs/out") == (0, [b"/pfs/out"])
    big = b"0123456789\n" * 100_000
    assert run(box, "wc -c", stdin=big) == (0, [b"1100000"])


def test_nothing_survives(box):
    seconds = str(random.SystemRandom().randrange(10**6, 10**9))  # by which the test knows the process

    def lives():
        found = psutil.process_iter(["cmdline"])
        return [p for p in found if p.info["cmdline"] == ["sleep", seconds]]

    code, _ = run(box, f"setsid sleep {seconds} >/dev/null 2>&1 & disown; exit 0")
    assert code == 0
    end = time.monotonic() + 60
    while lives() and time.monotonic() < end:
        time.sleep(0.02)
    assert not lives()


def test_timeout(box):
    began = time.monotonic()
    with pytest.raises(Failed, match="timed out after 0.3 seconds"):
        run(box, "echo before; sleep 1000", timeout=0.3)
    assert time.monotonic() - began < 100


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/no/such/program", "fork/exec /no/such/program: no such file or directory"),
        ("nosuchprogram", r'exec: "nosuchprogram": executable file not found in \$PATH'),
    ],
)
def test_no_such_program(box, program, words):
    with pytest.raises(Failed, match=words):
        box.run([program], None, host_environment(), "", 5, lambda line: None)


def test_secrets_of_pachd_are_not_inherited(box, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "x")
    assert "MY_TOKEN" not in host_environment()


HUNGRY = "import time; data = bytearray(1); exec('while True: data += bytes(4 << 20); time.sleep(0.001)')"


@pytest.fixture
def limited(tmp_path):
    limits = Limits(cpu=0.25, memory=200 << 20, memory_text="200Mi")
    box = Sandbox(tmp_path / "limited", str(tmp_path / "secret"), limits=limits)
    yield box
    box.close()


@pytest.mark.parametrize("script", [f'python3 -c "{HUNGRY}"', f'(python3 -c "{HUNGRY}"; true) & wait; sleep 60'])
def test_code_that_takes_more_memory_than_it_may_is_killed(limited, script):
    code, _ = run(limited, script)
    assert code
    assert limited.why(code) == "out of memory: the code was killed at its limit of 200Mi (resourceLimits.memory)"


def test_memory_of_several_processes_counts_together_but_what_they_share_once(limited):
    limited._limits = limited._limits._replace(cpu=0.0)
    share = "import os, time; data = b'x' * (120 << 20); [os.fork() for _ in range(3)]; time.sleep(1)"
    assert run(limited, f'python3 -c "{share}"')[0] == 0
    each = "data = bytearray(b'x') * (90 << 20); import time; time.sleep(100)"
    code, _ = run(limited, f'for i in 1 2 3; do python3 -c "{each}" & done; wait')
    assert code and "out of memory" in limited.why(code)


def test_files_in_memory_are_limited_too(limited):
    code, lines = run(limited, "head -c 300M /dev/zero > /dev/shm/big")
    assert code and b"No space left on device" in lines[-1]


def test_cpu_time_is_limited_for_all_processes_together(limited):
    # both together get a quarter of a core, which is one second; without a limit it is four on one core, eight on two
    spin = "end = time.monotonic() + 4; exec('while time.monotonic() < end: pass')"
    busy = f"import time, os; {spin}; os.write(1, b'%f\\n' % os.times()[0])"
    code, lines = run(limited, f'for i in 1 2; do python3 -c "{busy}" & done; wait')
    assert code == 0
    assert sum(map(float, lines)) < 2.5


def test_an_exit_by_signal_is_no_lack_of_memory(limited):
    code, _ = run(limited, "kill -9 $$")
    assert limited.why(code) == "exit status 137"


def test_the_timeout_counts_when_the_output_is_closed(box):
    began = time.monotonic()
    with pytest.raises(Failed, match="timed out"):
        run(box, "exec >&- 2>&-; sleep 1000", timeout=0.5)
    assert time.monotonic() - began < 100


def test_mounts_in_folders_that_are_read_only(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "key").write_text("1")
    targets = ["/var/howdah-a", "/var/lib/howdah-b/deep", "/howdah-c/deep", "/etc/howdah-d"]
    box = Sandbox(tmp_path / "mounting", "/var/lib/dpkg", [(str(kept), target) for target in targets])
    try:
        box.check()
        files = " ".join(f"{target}/key" for target in targets)
        code, lines = run(box, f"cat {files}; echo; ls /etc/passwd; ls /var/lib/dpkg; touch /var/x /etc/x || echo ro")
    finally:
        box.close()
    assert code == 0
    assert lines[:2] == [b"1111", b"/etc/passwd"] and lines[-1] == b"ro"
    assert len(lines) == 5  # nothing of the hidden folder, one complaint for each of the two
