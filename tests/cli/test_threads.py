"""Threads that sleep rather than spin beside a busy neighbour."""

import os
import subprocess
import sys

import pytest

CODE = """
import os, sys
import vertebra.cli.common
assert "torch" not in sys.modules, "OpenMP has read its settings already"
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "1000 None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE"),
    ],
    ids=["none given", "a count given", "a policy given"],
)
def test_a_command_limits_spinning_before_torch_is_imported_unless_the_user_has_chosen(given, expected):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
