# What every shell on a node of a cluster has, and so Ray, which is started from one. setup.sh lets
# ~/.bashrc read it. docs/cluster.md tells what was measured of them.

export PATH="$HOME/.tensorgap/bin:$PATH"

# No one without the token may join, submit or look. Said outright, because Ray switches it on by
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

# Ray's own metrics, whose ports need no token: not collected, and two ports of the head
# that cannot be opened, which Ray writes into its logs and otherwise does without.
export RAY_enable_metrics_collection=0
export AUTOSCALER_METRIC_PORT=-1
export DASHBOARD_METRIC_PORT=-1

# Ray opens all its files to every user of the host, the code that it runs included. So they lie
# below a folder that no one else enters; on the host's own disk, because hosts may share homes.
RAY_TMPDIR="/tmp/tensorgap-ray-$(id -u)"
mkdir -m 700 "$RAY_TMPDIR" 2> /dev/null || true
if [ -L "$RAY_TMPDIR" ] || [ ! -O "$RAY_TMPDIR" ] || [ "$(stat -c %a "$RAY_TMPDIR")" != 700 ]; then
  echo "tensorgap: $RAY_TMPDIR is not a folder of $(id -un) with mode 700; Ray does not start" >&2
  RAY_TMPDIR=/dev/null
fi
export RAY_TMPDIR
