#!/usr/bin/env bash
# Completes a cloud's plain Ubuntu 24.04: Python's venv, and the driver where there is a GPU.
# 580 is the last branch of the driver that knows Pascal and Volta, and new enough for CUDA 13.
set -euo pipefail

packages=(python3-venv rsync)
if lspci -d 10de: | grep -q .; then # 10de is NVIDIA
  packages+=(nvidia-driver-580-server)
  # GPUs behind NVSwitches do not start without it (A100 and H100 by the eight).
  if lspci -d 10de: | grep -qi bridge; then packages+=(nvidia-fabricmanager-580); fi
fi
if ! dpkg --status "${packages[@]}" > /dev/null 2>&1; then
  sudo apt-get update -q
  # A fresh machine is still updating itself and holds the lock meanwhile.
  sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=900 install -q -y "${packages[@]}"
fi
case " ${packages[*]} " in
  *nvidia*)
    sudo modprobe nvidia
    systemctl cat nvidia-fabricmanager > /dev/null 2>&1 && sudo systemctl start nvidia-fabricmanager
    nvidia-smi -L
    ;;
esac
