"""How tests are dealt out to several processes: a file goes to one of them, the longest first."""

from typing import Any

# A file shares servers among its tests and stays together; these are dealt out test by test, ...
ALONE = ("tests/conformance/", "tests/faults/")
# ... and these go together: one Docker engine for all of its tests; the demos, each of which wants the usual ports.
TOGETHER = {
    "tests/docker/": "docker",
    "tests/demo/": "demo",
    "tests/howdah/test_interrupt.py::test_demo": "demo",
}
# Seconds of the longest, measured on two processors: the order in which they are dealt out.
LONGEST = {
    "demo": 200,
    "tests/fuzz/": 100,
    "tests/pfs_graph/test_machine.py": 90,
    "tests/label_studio/test_pitfalls.py": 85,
    "docker": 80,
    "tests/faults/test_kill_label_studio.py": 75,
    "tests/label_studio/test_real.py": 70,
    "tests/pps/test_running.py": 65,
    "tests/howdah/test_interrupt.py": 60,
    "tests/faults/": 50,
    "tests/label_studio/": 50,
    "tests/pps/": 45,
    "tests/storage/": 40,
    "tests/operations/": 35,
    "tests/auth/": 30,
    "tests/conformance/": 30,
    "tests/howdah/": 25,
    "tests/clients/": 20,
    "tests/mount/": 20,
}


def scope(nodeid: str) -> str:
    """Which tests one process runs: those of the same scope."""
    for start, name in TOGETHER.items():
        if nodeid.startswith(start):
            return name
    return nodeid if nodeid.startswith(ALONE) else nodeid.partition("::")[0]


def place(nodeid: str) -> int:
    """Where a test comes, by the scope that it is in; within a scope the order stays."""
    return -next((seconds for start, seconds in LONGEST.items() if scope(nodeid).startswith(start)), 0)


def scheduler(config: Any, log: Any) -> Any:
    """What pytest-xdist asks for scopes. It would put those with most tests first."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    config.option.loadscopereorder = False
    return Scheduler(config, log)
