"""A queue in small, so that what Vertebra and submitit say to SLURM is tried where there is none.

`install(DIRECTORY)` makes sbatch, squeue, scancel, scontrol and srun there; jobs are processes of this machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")


def install(directory: Path) -> None:
    directory.mkdir()
    for name in COMMANDS:
        path = directory / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "{directory}" "$@"\n')
        path.chmod(0o755)


def jobs(place: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in place.glob("[0-9]*.json")}


def write(place: Path, number: str, **facts: object) -> None:
    path = place / f"{number}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.with_suffix(".new").write_text(json.dumps({**known, **facts}))
    path.with_suffix(".new").rename(path)


def sbatch(place: Path, script: str) -> None:
    flags = [line[10:].split("=", 1) for line in Path(script).read_text().splitlines() if line.startswith("#SBATCH --")]
    options = {flag[0]: flag[-1].strip("'\"") for flag in flags}
    number = str(100 + len(jobs(place)))
    write(place, number, name=options["job-name"], state="PENDING", options=options)
    command = [sys.executable, "-S", __file__, "keep", str(place), number, os.path.abspath(script)]
    subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def keep(place: Path, number: str, script: str) -> None:
    """Wait for what the job needs, and run it, again where it was requeued."""
    text = Path(script).read_text()  # submitit moves the file
    needed = jobs(place)[number]["options"].get("dependency", "").split(":")[1:]
    while states := {jobs(place)[one]["state"] for one in needed} - {"COMPLETED"}:
        if "FAILED" in states:
            write(place, number, state="FAILED")
            return
        time.sleep(0.05)
    environment = {"SLURM_JOB_ID": number, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    environment |= {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "here"}
    while jobs(place)[number]["state"] == "PENDING":
        body = ["bash", "-c", text]
        process = subprocess.Popen(body, env={**os.environ, **environment}, start_new_session=True)
        write(place, number, state="RUNNING", process=process.pid)
        code = process.wait()
        if jobs(place)[number]["state"] == "RUNNING":
            write(place, number, state="FAILED" if code else "COMPLETED")


def squeue(place: Path, *_: str) -> None:
    for number, job in jobs(place).items():
        if job["state"] in ("PENDING", "RUNNING"):
            print(f"{number}|{job['state']}|{job['name']}")


def scancel(place: Path, number: str) -> None:
    if job := jobs(place).get(number):
        write(place, number, state="FAILED")
        if "process" in job:
            os.killpg(job["process"], signal.SIGTERM)


def scontrol(place: Path, verb: str, number: str) -> None:
    assert verb == "requeue"
    write(place, number, state="PENDING")


def srun(place: Path, *words: str) -> None:
    command = list(words[next(index for index, word in enumerate(words) if "python" in Path(word).name) :])
    os.execvp(command[0], command)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
