#!/usr/bin/env bash
# Installs what a node needs into the Python of this shell, in the versions of constraints.txt.
# usage: install.sh cpu | cu126 | cu130      the build of torch
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

case $1 in
  cu126) torch='torch<2.15' ;; # 2.14 is the last with kernels for Pascal and Volta (bench/device/gpus.py)
  *) torch=torch ;;
esac
install() { python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$@"; }
# A build for another GPU (2.13.0+cpu) would do for pip, which compares no local version. Any build
# computes on a CPU.
found=$(python -c '
from importlib.metadata import distributions
print(*(torch.version for torch in distributions(name="torch")))')
replace=()
if [[ -n $found && $1 != cpu && $found != *"+$1" ]]; then replace=(--force-reinstall); fi
# Torch first: another package's looser wish would bring another build of it. And by itself: what it
# needs comes below from PyPI, as its own index may lack the versions of constraints.txt.
install --no-deps "${replace[@]}" "$torch" --index-url "https://download.pytorch.org/whl/$1"
install --requirement <(
  python -c '
import configparser
metadata = configparser.ConfigParser()
metadata.read("setup.cfg")
print(metadata["options"]["install_requires"])
print(metadata["options.extras_require"]["cluster"])'
)
