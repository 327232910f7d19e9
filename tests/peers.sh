#!/usr/bin/env bash
# Run the tests that need detectron2, in an environment of its own: the packages of VENV, detectron2's few, its sources.
# tests/detectors/detectron2_peer.py gives back what these expect of their time.
#   tests/peers.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv} PEERS=${PEERS:-.venv-peers}
site_of() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }

if [ ! -e "$PEERS/.ready" ]; then
    "$VENV/bin/python" -m venv --without-pip "$PEERS"
    site=$(site_of "$PEERS")
    mkdir -p "$PEERS/sources"
    { site_of "$VENV"; realpath "$PEERS/sources"; } >"$site/peers.pth"
    pip=("$VENV/bin/python" -m pip --disable-pip-version-check)
    # Without what they depend on: torch, numpy and the rest are there already.
    "${pip[@]}" install -q --no-deps --target "$site" --upgrade "fvcore>=0.1.5,<0.1.6" "iopath>=0.1.7,<0.1.10" \
        "omegaconf>=2.1,<2.4" "antlr4-python3-runtime==4.9.*" hydra-core yacs tabulate cloudpickle termcolor portalocker
    "${pip[@]}" download -q --no-deps --no-build-isolation --no-binary :all: "pb1-detectron2==0.6" -d "$PEERS"
    tar -xzf "$PEERS"/pb1?detectron2-0.6.tar.gz -C "$PEERS/sources" --strip-components=1
    touch "$PEERS/.ready"
fi
OMP_NUM_THREADS=1 exec "$PEERS/bin/python" -m pytest -m "not slow and not gpu" \
    tests/detectors/test_detectron2.py tests/detectors/test_in_detectron2.py tests/cli/test_detectron2_engine.py "$@"
