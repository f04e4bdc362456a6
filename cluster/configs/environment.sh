# What every shell on a node of a cluster has, and so Ray, which is started from one. setup.sh lets
# ~/.bashrc read it. docs/cluster.md tells what was measured of them.

export PATH="$HOME/.tensorgap/bin:$PATH"

# Nobody without the token may join, submit or look. Said outright, because Ray switches it on by
# itself on a machine where it finds a token file, and on another not.
export RAY_AUTH_MODE=token

# A host that is gone or cut off is noticed within 9 s; Ray's defaults take 62 s.
export RAY_health_check_initial_delay_ms=1000
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3

# Ray's agent asks the driver about each GPU every 5 s, also while something is measured; once an
# hour is as good as never (it cannot be switched off: ray-project/ray#65808).
export REPORTER_UPDATE_INTERVAL_MS=3600000

# Ray runs its workers at nice 15, so that anything else on the host would compute first, also while
# something is measured.
export RAY_worker_niceness=0

# Ray counts the GPUs of a host in NVML's order; CUDA's own is the fastest first.
export CUDA_DEVICE_ORDER=PCI_BUS_ID

# Ray starts a spare worker for each core, which would compute beside the first measurement: when a
# node starts, or, where that is off, when the first driver of a node connects.
export RAY_enable_worker_prestart=0
export RAY_prestart_worker_first_driver=0
