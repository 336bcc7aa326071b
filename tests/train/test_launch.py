"""Several processes: what a failed one said is the last thing read, and none outlives the command."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from guardreasoner.errors import GuardReasonerError
from guardreasoner.train.launch import launch

CHILD = """
import subprocess, sys, time
from guardreasoner.train.launch import end_with_parent
end_with_parent()
if sys.argv[1] == "2":
    print("there", flush=True)
    time.sleep(600)
else:
    subprocess.Popen([sys.executable, "-c", open(sys.argv[2]).read(), "2", sys.argv[2]]).wait()
"""
PARENT = """
import subprocess, sys
from guardreasoner.train.launch import end_with_parent
words = [sys.executable, "-c", open(sys.argv[1]).read(), "1", sys.argv[1]]
subprocess.Popen(words, preexec_fn=end_with_parent).wait()
"""


def test_of_processes_that_failed_the_sentence_is_the_error_and_torchrun_says_nothing(tmp_path, capfd):
    with pytest.raises(GuardReasonerError) as failure:
        launch(["sft", "1b", "--out", str(tmp_path)], 2)
    assert str(failure.value).endswith("run `guardreasoner synthesize` first")
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    assert "ChildFailedError" not in printed


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_parent_that_is_killed_takes_its_processes_and_theirs_with_it(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(script)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout.readline() == b"there\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(600):  # the pipe ends when nobody holds it any more; this is patience, not a measure
        if not alive(parent.pid):
            return
        time.sleep(0.1)
    os.killpg(parent.pid, signal.SIGKILL)
    pytest.fail("a process outlived its parent")


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
