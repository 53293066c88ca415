"""Memory that stays with the process between steps."""

import platform
import subprocess
import sys

import pytest

from mnv3search.training.allocator import keep_freed_memory

FAULTS_OF_A_THIRD_ROUND = """
import resource
from mnv3search.training.allocator import keep_freed_memory
{call}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * 4_000_000 for _ in range(16)]
    del blocks
    after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(after - before)
"""
PAGES = 16 * 4_000_000 // 4096

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator can be told")


def faults(call: str) -> int:
    script = FAULTS_OF_A_THIRD_ROUND.format(call=call)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(run.stdout)


@glibc
def test_what_was_freed_is_taken_again_without_page_faults() -> None:
    assert faults("") > PAGES / 2  # the rule: memory goes back to the system
    assert faults("keep_freed_memory()") < PAGES / 10


@glibc
def test_it_says_that_it_did() -> None:
    assert keep_freed_memory() is True


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
