#!/usr/bin/env bash
# Makes a machine a node: Python packages in ~/.tensorgap, and what shells there need to know.
# It may run any number of times. Nothing of tensorgap is installed: bench and cluster travel with
# each job, so that what measures is what was submitted.
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"

read_by_shells=". ~/tensorgap/cluster/configs/environment.sh"
grep -qxsF "$read_by_shells" ~/.bashrc || echo "$read_by_shells" >> ~/.bashrc
# shellcheck source=cluster/configs/environment.sh
. "$here/environment.sh"

# Where venv fails half-way, as without python3-venv, it leaves a Python without pip.
if ! ~/.tensorgap/bin/python -m pip --version > /dev/null 2>&1; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and
    "tensorgap needs Python 3.11 or newer; python3 is here " + sys.version)'
  python3 -m venv ~/.tensorgap
fi

# The build of torch with kernels for this GPU, of several for the oldest, whose kernels the newer
# builds lack; a head without a GPU needs no CUDA. nvidia-smi tells of its failures on standard
# output, too.
capabilities="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null || true)"
case "$(sort --version-sort <<< "$capabilities" | head -n 1)" in
  [56].* | 7.[0-4]) build=cu126 ;;
  [0-9]*.*) build=cu130 ;;
  *) build=cpu ;;
esac
bash "$here/install.sh" "$build"
