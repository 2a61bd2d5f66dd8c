"""Starting one of several processes: what is refused, and what is said where the others do not come."""

import os
import subprocess
import sys

import pytest

from jaxdiff.training import distributed


@pytest.mark.parametrize(
    "how", ["", "Auto", "10.0.0.2,4,0", "10.0.0.2:8476", "10.0.0.2:8476,4,4", "h:1,2,-1", "h:1,0,0"]
)
def test_what_is_no_place_in_a_run_is_refused(how):
    with pytest.raises(ValueError, match=r"expected auto, or host:port,count,index"):
        distributed.start(how)


def test_a_process_alone_has_no_name():
    assert distributed.name() == ""
    assert distributed.index() == 0


def alone(how, variables=()):
    """What a process says that starts so, with no other one."""
    code = f"from jaxdiff.training import distributed; distributed.start({how!r}, timeout=1)"
    environment = {**os.environ, **dict(variables)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_auto_where_there_is_no_cluster_says_what_to_give():
    assert "found no cluster (it knows Cloud TPU, GKE, SLURM and Open MPI): give --distributed host" in alone("auto")


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_whose_others_do_not_come_ends_with_a_sentence(index):
    assert alone(f"127.0.0.1:{20000 + os.getpid() % 10000},2,{index}").startswith(
        f"jaxdiff: process {index} waited 1 s for the others at 127.0.0.1:"
    )
