#!/usr/bin/env bash
# Makes a machine a node: Python packages in ~/.tensorgap, and what shells there need to know.
# It may run any number of times. Nothing of tensorgap is installed: bench and cluster travel with
# each job, so that what measures is what was submitted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." # where file_mounts put the project: ~/tensorgap

read_by_shells=". ~/tensorgap/cluster/configs/environment.sh"
grep -qxsF "$read_by_shells" ~/.bashrc || echo "$read_by_shells" >> ~/.bashrc
# shellcheck source=cluster/configs/environment.sh
. cluster/configs/environment.sh

test -x ~/.tensorgap/bin/python || python3 -m venv ~/.tensorgap

# The CUDA 12.6 builds up to torch 2.14 are the last with kernels for Pascal and Volta (P100, V100);
# the head, which has no GPU, needs no CUDA.
case "$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | head -n 1)" in
  "") torch=(torch --index-url https://download.pytorch.org/whl/cpu) ;;
  [56].* | 7.[0-4]) torch=('torch<2.15' --index-url https://download.pytorch.org/whl/cu126) ;;
  *) torch=(--upgrade torch --index-url https://download.pytorch.org/whl/cu130) ;;
esac
install=(python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt)
"${install[@]}" "${torch[@]}"
"${install[@]}" --requirement <(
  python -c '
import configparser
metadata = configparser.ConfigParser()
metadata.read("setup.cfg")
print(metadata["options"]["install_requires"])
print(metadata["options.extras_require"]["cluster"])'
)
