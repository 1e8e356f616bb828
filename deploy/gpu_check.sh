#!/usr/bin/env bash
# Check the GPU of this host: run every path of the library on the GPU and on the processor, and print one table.
#
#   deploy/gpu_check.sh [--out FOLDER] [--architectures NAMES]
#
# The first run installs a CUDA build of torch into VENV, which downloads several GB. Variables:
#
#   PYTHON=python3.12    the interpreter that the environment is made with
#   VENV=build/gpu       the environment
#
# Exit codes: 0 all paths work, 1 a path failed or differs from the processor, 2 something is missing (one line says
# what).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3} VENV=${VENV:-build/gpu}

missing() {
  echo "gpu_check: expected $1, got $2; $3" >&2
  exit 2
}

command -v nvidia-smi > /dev/null ||
  missing "NVIDIA's driver" "no nvidia-smi" "run this on a host with an NVIDIA GPU, and install its driver"
gpus=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1) ||
  missing "a GPU that the driver can use" "${gpus%%$'\n'*}" "load the driver again, or restart the host"
[ -n "$gpus" ] || missing "a GPU" "a driver without one" "check that the GPU is visible to this machine or container"

if [ ! -x "$VENV/bin/python" ]; then
  command -v "$PYTHON" > /dev/null || missing "Python 3.11 or later" "no $PYTHON" "set PYTHON"
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    missing "Python 3.11 or later" "$("$PYTHON" --version 2>&1)" "set PYTHON"
  "$PYTHON" -m venv "$VENV"
fi
if [ ! -e "$VENV/.installed" ] || [ pyproject.toml -nt "$VENV/.installed" ]; then
  echo "Installing a CUDA build of torch into $VENV (several GB) ..." >&2
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[server]' ||
    missing "an environment with torch" "an error of pip" "read pip's message above"
  touch "$VENV/.installed"
fi
built=$("$VENV/bin/python" -c 'import torch; print(torch.__version__, "for CUDA", torch.version.cuda)')
"$VENV/bin/python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
  missing "a torch that can use ${gpus%%$'\n'*}" "torch $built" \
    "unset PIP_EXTRA_INDEX_URL, remove $VENV, and use a driver that is new enough for this CUDA"
exec "$VENV/bin/python" -W ignore -m benchmarks.gpu_check "$@"
