/* A stand-in for libnvidia-ml.so.1 that behaves as the sensors of real GPUs do.
 *
 * The test says what the GPU draws (fakenvml_set_power); the library then shows it as that GPU's
 * sensor would: averaged over a window, published at ticks, integrated by a counter or not at all.
 * Since the true energy is known exactly, what a measurement should find is a formula.
 * How to build, configure and load it: README.md. Written from the public description of the NVML
 * interface; no NVIDIA code.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define MAX_GPUS 8
#define MAX_STEPS (1u << 20) /* steps of a power trace, per GPU */
#define MAX_FAULTS 64
#define EPOCH_S 1000.0 /* where the virtual clock starts */

typedef int result; /* nvmlReturn_t */
enum {
  OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, FUNCTION_NOT_FOUND = 13, VERSION_MISMATCH = 25
};

/* ------------------------------------------------------------------ NVML's binary interface */

typedef union { double d; unsigned ui; unsigned long long ull; } value_t;
typedef struct {
  unsigned field, scope;
  long long timestamp_us, latency_us;
  int type;
  result status;
  value_t value;
} field_t;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process_t;
typedef struct {
  char bus_id_legacy[16];
  unsigned domain, bus, device, pci_device, pci_subsystem;
  char bus_id[32];
} pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned version; int sensor, celsius; } temperature_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned long long reference_us, violation_ns; } violation_t;
_Static_assert(sizeof(field_t) == 40 && sizeof(process_t) == 24 && sizeof(pci_t) == 68 &&
               sizeof(memory_v2_t) == 40 && sizeof(temperature_t) == 12 &&
               sizeof(violation_t) == 16, "sizes of NVML");

/* ------------------------------------------------------------------------------- the GPUs */

typedef struct {
  char name[96], uuid[80], bus_id[32];
  int cc_major, cc_minor, arch; /* arch: 4 Pascal, 5 Volta, 6 Turing, 7 Ampere, 8 Ada, 9 Hopper */
  /* Instant power: the mean of window_ms, published every update_ms. */
  double update_ms, window_ms, phase_ms, jitter_ms;
  double lag_ms; /* of a filter of the first order before the sensor; the counter has it, too */
  double publish_ms; /* readings and counter can be read so long after their tick */
  /* Average power: the same over avg_window_ms; avg_update_ms 0: the GPU has none. */
  double avg_update_ms, avg_window_ms;
  int instant_field; /* field 186 is offered */
  int usage_is_avg;  /* nvmlDeviceGetPowerUsage gives the average */
  /* Energy counter, published every energy_update_ms; energy 0: the GPU has none. energy_sampled:
   * it adds up the instant readings, which see only window_ms of each update_ms. */
  int energy, energy_sampled;
  double energy_update_ms, energy_phase_ms, energy_resolution_mj;
  double gain, offset_w, noise_w; /* the sensor's error: gain * true + offset +- noise */
  double energy_scale;            /* the counter's own error, on top of the sensor's */
  double idle_w, limit_w, temp_c, heat_c_per_w, mem_gib;
  int mig, sm_mhz, mem_mhz; /* mig: -1 none, 0 off, 1 on with one slice */
  int ecc, persistence;     /* ecc: -1 none */
  int pcie_gen, pcie_width;
  int virtualization; /* 0 none, 1 passed through, 2 vGPU */
  int extra_pid, extra_kind; /* extra_kind: 0 computes, 1 draws, 2 computes through MPS */
  double extra_pid_from_s;
  double module_w; /* what the CPU beside it draws, if it is one module with one; 0: it is not */
  int pstate;
  char serial[32], vbios[32];
  unsigned long long throttle; /* clocks event reasons in [throttle_from_s, ..to_s) */
  double throttle_from_s, throttle_to_s;
  double stuck_from_s, stuck_to_s; /* meanwhile neither power nor counter is published */
  double reset_s;                  /* the counter begins again from 0 then; 0: never */
} gpu_t;

/* Update period and window of the readings: Yang, Adamek, Armour, SC'24 (arXiv 2312.02741), for
 * P100, V100, A100 and H100; the others are taken from the nearest GPU that was measured there.
 * Which GPU has the counter, and whose usage is an average: nvml.h. */
static const struct {
  const char *key, *name;
  int cc_major, cc_minor, arch;
  double update_ms, window_ms, avg_update_ms, energy_update_ms; /* 0: none */
  int mig;
  double idle_w, limit_w, mem_gib;
} presets[] = {
  {"p100", "Tesla P100-PCIE-16GB", 6, 0, 4, 20, 10, 0, 0, -1, 30, 250, 16},
  {"p40", "Tesla P40", 6, 1, 4, 20, 10, 0, 0, -1, 10, 250, 24},
  {"v100", "Tesla V100-SXM2-16GB", 7, 0, 5, 20, 10, 0, 20, -1, 42, 300, 16},
  {"t4", "Tesla T4", 7, 5, 6, 100, 100, 0, 100, -1, 10, 70, 16},
  {"a100", "NVIDIA A100-SXM4-40GB", 8, 0, 7, 100, 25, 0, 100, 0, 55, 400, 40},
  {"a100-mig", "NVIDIA A100-SXM4-40GB", 8, 0, 7, 100, 25, 0, 100, 1, 55, 400, 40},
  {"l4", "NVIDIA L4", 8, 9, 8, 100, 100, 100, 100, -1, 16, 72, 24},
  {"h100", "NVIDIA H100 PCIe", 9, 0, 9, 100, 25, 100, 100, 0, 75, 350, 80},
  {"h200", "NVIDIA H200", 9, 0, 9, 100, 25, 100, 100, 0, 75, 700, 141},
  {"gh200", "NVIDIA GH200 480GB", 9, 0, 9, 100, 25, 100, 100, 0, 75, 900, 96},
};

typedef struct { char function[64]; int gpu, code; double from_s, to_s, every; } fault_t;
typedef struct { double time_s, watts, joules_before, shown_before; } step_t;
typedef struct { /* shared between processes if FAKENVML_SHM says so */
  int is_virtual;
  double start_s;
  _Atomic uint64_t virtual_ns, calls;
  fault_t faults[MAX_FAULTS];
  _Atomic int fault_count;
  _Atomic unsigned step_count[MAX_GPUS];
  step_t steps[MAX_GPUS][MAX_STEPS];
} shared_t;

static gpu_t gpus[MAX_GPUS];
static char slices[MAX_GPUS]; /* only their addresses are used: handles of MIG slices */
static int gpu_count;
static shared_t *shared;
static int opened; /* nvmlInit less nvmlShutdown */
static char driver_version[80];
static int driver_major;
static struct { int started; long long first, tick; double joules; } sampled[MAX_GPUS];
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t sampled_lock = PTHREAD_MUTEX_INITIALIZER;

static double real_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static double now(void) {
  return shared->is_virtual ? shared->virtual_ns * 1e-9 : real_clock();
}

/* Whoever sets the power from a time on holds this lock from when it looks at the clock. */
static pthread_mutex_t *writer;

/* A time up to which the power is settled. */
static double settled(void) {
  double time_s = now();
  if (writer) {
    pthread_mutex_lock(writer);
    pthread_mutex_unlock(writer);
  }
  return time_s;
}

static long long epoch_us(double time_s) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  double offset_s = shared->is_virtual ? 0 : t.tv_sec + t.tv_nsec * 1e-9 - real_clock();
  return (long long)((time_s + offset_s) * 1e6);
}

/* A number in [-0.5, 0.5) that depends on the key only, so that noise is the same in each run. */
static double scatter(uint64_t key) {
  key ^= key >> 33;
  key *= 0xff51afd7ed558ccdULL;
  key ^= key >> 33;
  key *= 0xc4ceb9fe1a85ec53ULL;
  return (uint32_t)(key >> 32) / 4294967296.0 - 0.5;
}

/* ------------------------------------------------------------------- from truth to readings */

/* When a sensor was last alive, of what can be read by now. */
static double alive(int d, double time_s) {
  time_s -= gpus[d].publish_ms * 1e-3;
  double elapsed_s = time_s - shared->start_s;
  gpu_t *g = &gpus[d];
  return elapsed_s >= g->stuck_from_s && elapsed_s < g->stuck_to_s
             ? shared->start_s + g->stuck_from_s
             : time_s;
}

/* The step of the trace that a time lies in; NULL before the first. */
static step_t *step_at(int d, double time_s) {
  unsigned count = atomic_load_explicit(&shared->step_count[d], memory_order_acquire);
  step_t *steps = shared->steps[d];
  if (!count || time_s < steps[0].time_s) return NULL;
  unsigned low = 0, high = count;
  while (high - low > 1) {
    unsigned middle = (low + high) / 2;
    if (steps[middle].time_s <= time_s) low = middle; else high = middle;
  }
  return &steps[low];
}

static double true_joules(int d, double time_s) {
  step_t *step = step_at(d, time_s);
  if (!step) return gpus[d].idle_w * (time_s - shared->start_s);
  return step->joules_before + step->watts * (time_s - step->time_s);
}

/* The power behind the lag. */
static double shown_watts(int d, double time_s) {
  step_t *step = step_at(d, time_s);
  if (!step) return gpus[d].idle_w;
  double part = exp((step->time_s - time_s) / (gpus[d].lag_ms * 1e-3));
  return step->watts + (step->shown_before - step->watts) * part;
}

/* What has come through the lag: all but what it holds back. */
static double seen_joules(int d, double time_s) {
  double lag_s = gpus[d].lag_ms * 1e-3;
  double held_j = lag_s > 0 ? lag_s * (shown_watts(d, time_s) - gpus[d].idle_w) : 0;
  return true_joules(d, time_s) - held_j;
}

static double mean_watts(int d, double time_s, double window_ms) {
  double window_s = window_ms * 1e-3;
  return (seen_joules(d, time_s) - seen_joules(d, time_s - window_s)) / window_s;
}

typedef struct { double period_ms, phase_ms, jitter_ms; } ticking;

static double tick_time(ticking t, int d, long long k) {
  double jitter_ms = t.jitter_ms * scatter((uint64_t)k * 2654435761u + d);
  return (k * t.period_ms + t.phase_ms + jitter_ms) * 1e-3;
}

static long long last_tick(ticking t, int d, double time_s) {
  long long k = (long long)floor((time_s * 1e3 - t.phase_ms) / t.period_ms) + 1;
  while (tick_time(t, d, k) > time_s) k--;
  return k;
}

static double reported(int d, double watts, long long tick) {
  gpu_t *g = &gpus[d];
  double noise_w = g->noise_w * 2 * scatter((uint64_t)tick * 7919 + d);
  return fmax(0, g->gain * watts + g->offset_w + noise_w);
}

static double instant_watts(int d, double time_s) {
  gpu_t *g = &gpus[d];
  ticking t = {g->update_ms, g->phase_ms, g->jitter_ms};
  long long k = last_tick(t, d, alive(d, time_s));
  return reported(d, mean_watts(d, tick_time(t, d, k), g->window_ms), k);
}

static double average_watts(int d, double time_s) {
  gpu_t *g = &gpus[d];
  ticking t = {g->avg_update_ms, g->phase_ms, 0};
  long long k = last_tick(t, d, alive(d, time_s));
  return reported(d, mean_watts(d, tick_time(t, d, k), g->avg_window_ms), k);
}

/* A sampled counter: each tick adds the reading of its window for all of its period. */
static double sampled_joules(int d, ticking t, long long until) {
  pthread_mutex_lock(&sampled_lock);
  long long first = last_tick(t, d, shared->start_s);
  if (!sampled[d].started || sampled[d].first != first || sampled[d].tick > until) {
    sampled[d].started = 1;
    sampled[d].first = sampled[d].tick = first;
    sampled[d].joules = 0;
  }
  while (sampled[d].tick < until) {
    double before = tick_time(t, d, sampled[d].tick);
    double time_s = tick_time(t, d, ++sampled[d].tick);
    double watts = reported(d, mean_watts(d, time_s, gpus[d].window_ms), sampled[d].tick);
    sampled[d].joules += watts * (time_s - before);
  }
  double joules = sampled[d].joules;
  pthread_mutex_unlock(&sampled_lock);
  return joules;
}

static unsigned long long counter_mj(int d, double time_s) {
  gpu_t *g = &gpus[d];
  ticking t = {g->energy_update_ms, g->energy_phase_ms, g->jitter_ms};
  long long k = last_tick(t, d, alive(d, time_s));
  double tick_s = tick_time(t, d, k), joules;
  double reset_s = shared->start_s + g->reset_s;
  if (g->energy_sampled) {
    joules = sampled_joules(d, t, k);
  } else {
    joules = g->gain * (seen_joules(d, tick_s) - seen_joules(d, shared->start_s)) +
             (g->offset_w + g->module_w) * (tick_s - shared->start_s);
  }
  joules *= g->energy_scale;
  double mj = joules * 1e3 + 5e8; /* as if the driver had been loaded long ago */
  if (g->reset_s && tick_s >= reset_s)
    mj = fmax(0, (seen_joules(d, tick_s) - seen_joules(d, reset_s)) * 1e3);
  return (unsigned long long)(floor(mj / g->energy_resolution_mj) * g->energy_resolution_mj);
}

/* ------------------------------------------------------------------------- configuration */

static void add_gpu(const char *key) {
  gpu_t *g = &gpus[gpu_count];
  *g = (gpu_t){
    .cc_major = 8, .arch = 7, .update_ms = 100, .window_ms = 100, .avg_window_ms = 1000,
    .instant_field = 1, .energy = 1, .energy_update_ms = 100, .energy_resolution_mj = 1,
    .gain = 1, .noise_w = 0.3, .idle_w = 50, .limit_w = 300, .temp_c = 45, .heat_c_per_w = 0.1, .mem_gib = 16,
    .mig = -1, .sm_mhz = 1380, .mem_mhz = 877, .ecc = 1, .persistence = 1, .pcie_gen = 3,
    .pcie_width = 16, .energy_scale = 1, .serial = "1320000000000", .vbios = "88.00.41.00.0D",
  };
  snprintf(g->name, sizeof g->name, "%s", key);
  snprintf(g->uuid, sizeof g->uuid, "GPU-fa4e0000-0000-4000-8000-%012d", gpu_count);
  snprintf(g->bus_id, sizeof g->bus_id, "00000000:%02X:00.0", gpu_count + 1);
  for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
    if (strcmp(presets[i].key, key)) continue;
    snprintf(g->name, sizeof g->name, "%s", presets[i].name);
    g->cc_major = presets[i].cc_major;
    g->cc_minor = presets[i].cc_minor;
    g->arch = presets[i].arch;
    g->update_ms = presets[i].update_ms;
    g->window_ms = presets[i].window_ms;
    g->avg_update_ms = presets[i].avg_update_ms;
    g->usage_is_avg = presets[i].avg_update_ms > 0;
    g->energy_update_ms = presets[i].energy_update_ms;
    g->energy = presets[i].energy_update_ms > 0;
    g->mig = presets[i].mig;
    g->pcie_gen = g->arch < 7 ? 3 : g->arch < 9 ? 4 : 5;
    g->idle_w = presets[i].idle_w;
    g->limit_w = presets[i].limit_w;
    g->mem_gib = presets[i].mem_gib;
    g->module_w = strcmp(key, "gh200") ? 0 : 100;
  }
  gpu_count++;
}

/* fault = FUNCTION or PREFIX*:GPU or -1:CODE:FROM_S[:TO_S[:EVERY_NTH_CALL]] */
static result add_fault(const char *text) {
  fault_t f = {.to_s = 1e18, .every = 1};
  int read = sscanf(text, "%63[^:]:%d:%d:%lf:%lf:%lf", f.function, &f.gpu, &f.code, &f.from_s,
                    &f.to_s, &f.every);
  if (read < 4 || shared->fault_count >= MAX_FAULTS) return INVALID_ARGUMENT;
  shared->faults[shared->fault_count] = f;
  shared->fault_count++;
  return OK;
}

static result set_key(int d, const char *key, const char *value) {
  gpu_t *g = &gpus[d];
#define NUMBER(field) if (!strcmp(key, #field)) { g->field = atof(value); return OK; }
#define TEXT(field) \
  if (!strcmp(key, #field)) { snprintf(g->field, sizeof g->field, "%s", value); return OK; }
  NUMBER(update_ms) NUMBER(window_ms) NUMBER(phase_ms) NUMBER(jitter_ms) NUMBER(lag_ms)
  NUMBER(avg_update_ms) NUMBER(avg_window_ms) NUMBER(instant_field) NUMBER(usage_is_avg)
  NUMBER(energy) NUMBER(energy_sampled) NUMBER(energy_update_ms) NUMBER(energy_phase_ms)
  NUMBER(energy_resolution_mj) NUMBER(publish_ms) NUMBER(gain) NUMBER(offset_w) NUMBER(noise_w) NUMBER(idle_w)
  NUMBER(limit_w) NUMBER(temp_c) NUMBER(mem_gib) NUMBER(mig) NUMBER(sm_mhz) NUMBER(mem_mhz)
  NUMBER(extra_kind) NUMBER(module_w) NUMBER(pstate)
  NUMBER(extra_pid) NUMBER(extra_pid_from_s) NUMBER(cc_major) NUMBER(cc_minor) NUMBER(arch)
  NUMBER(ecc) NUMBER(persistence) NUMBER(pcie_gen) NUMBER(pcie_width) NUMBER(virtualization)
  NUMBER(stuck_from_s) NUMBER(stuck_to_s) NUMBER(reset_s) NUMBER(energy_scale) NUMBER(heat_c_per_w)
  TEXT(name) TEXT(uuid) TEXT(bus_id)
  if (!strcmp(key, "throttle")) {
    int read = sscanf(value, "%llx:%lf:%lf", &g->throttle, &g->throttle_from_s, &g->throttle_to_s);
    return read == 3 ? OK : INVALID_ARGUMENT;
  }
  return INVALID_ARGUMENT;
}

static char *trimmed(char *text) {
  text += strspn(text, " \t");
  text[strcspn(text, "\r\n")] = 0;
  for (char *end = text + strlen(text); end > text && strchr(" \t", end[-1]);) *--end = 0;
  return text;
}

/* Lines KEY = VALUE; "gpu" begins another GPU and the keys after it are that GPU's. */
static result configure(const char *text, int fresh) {
  char *copy = strdup(text), *rest = copy, *line;
  result status = OK;
  gpu_count = 0;
  memset(sampled, 0, sizeof sampled);
  snprintf(driver_version, sizeof driver_version, "%s", "580.65.06");
  if (fresh) {
    memset(shared, 0, offsetof(shared_t, steps));
    shared->virtual_ns = (uint64_t)(EPOCH_S * 1e9);
    shared->is_virtual = getenv("FAKENVML_VIRTUAL") != NULL;
  }
  while (status == OK && (line = strsep(&rest, "\n"))) {
    line = trimmed(line);
    if (!*line || *line == '#') continue;
    char *value = line, *key = trimmed(strsep(&value, "="));
    if (!value) status = INVALID_ARGUMENT;
    else if (value = trimmed(value), !strcmp(key, "gpu") && gpu_count < MAX_GPUS) add_gpu(value);
    else if (!strcmp(key, "driver"))
      snprintf(driver_version, sizeof driver_version, "%s", value);
    else if (!strcmp(key, "virtual")) { if (fresh) shared->is_virtual = atoi(value); }
    else if (!strcmp(key, "fault")) { if (fresh) status = add_fault(value); }
    else status = gpu_count ? set_key(gpu_count - 1, key, value) : INVALID_ARGUMENT;
    if (status) fprintf(stderr, "fakenvml: cannot read '%s = %s'\n", key, value ? value : "");
  }
  free(copy);
  if (fresh) shared->start_s = now();
  driver_major = atoi(driver_version);
  return status;
}

/* What the environment configures, as text; the caller frees it. */
static char *environment(void) {
  const char *path = getenv("FAKENVML_CONFIG"), *list = getenv("FAKENVML_PRESET");
  char *text = NULL;
  if (path) {
    FILE *file = fopen(path, "r");
    size_t size = 0;
    if (!file) return NULL;
    if (getdelim(&text, &size, 0, file) < 0 && text) *text = 0;
    fclose(file);
    return text;
  }
  char *copy = strdup(list ? list : "a100"), *rest = copy, *key;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  while ((key = strsep(&rest, ","))) fprintf(out, "gpu = %s\n", key);
  fclose(out);
  free(copy);
  return text;
}

/* Once per process: map the shared state and read the environment. */
static result start_once(void) {
  if (shared) return OK;
  const char *path = getenv("FAKENVML_SHM");
  int file = -1, fresh = 1;
  if (path) {
    struct stat status;
    if ((file = open(path, O_RDWR | O_CREAT, 0600)) < 0) return DRIVER_NOT_LOADED;
    flock(file, LOCK_EX);
    fresh = !fstat(file, &status) && status.st_size < (off_t)sizeof(shared_t);
    if (fresh && ftruncate(file, sizeof(shared_t))) return DRIVER_NOT_LOADED;
  }
  int flags = path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void *map = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE, flags, file, 0);
  char *text = environment();
  result status = DRIVER_NOT_LOADED;
  if (map != MAP_FAILED && text) {
    shared = map;
    status = configure(text, fresh);
  }
  free(text);
  if (path) close(file); /* and with it the lock */
  return status;
}

static result start(void) {
  pthread_mutex_lock(&start_lock);
  result status = start_once();
  pthread_mutex_unlock(&start_lock);
  return status;
}

/* ------------------------------------------------------ what the tests call: not part of NVML */

static int has_gpu(int d) { return !start() && d >= 0 && d < gpu_count; }

/* Begin anew with this configuration: no power trace, no faults, and the clock at its start. */
API int fakenvml_configure(const char *text) {
  return start() ? INVALID_ARGUMENT : configure(text, 1);
}

/* From a time on the GPU draws this many watts, whatever was said of later times before. */
API int fakenvml_set_power_at(int d, double time_s, double watts) {
  if (!has_gpu(d)) return INVALID_ARGUMENT;
  unsigned count = shared->step_count[d];
  while (count && shared->steps[d][count - 1].time_s >= time_s) count--;
  atomic_store_explicit(&shared->step_count[d], count, memory_order_release);
  if (count && shared->steps[d][count - 1].watts == watts) return OK;
  if (count >= MAX_STEPS) return INSUFFICIENT_SIZE;
  double joules = true_joules(d, time_s), shown = shown_watts(d, time_s);
  shared->steps[d][count] = (step_t){time_s, watts, joules, shown};
  atomic_store_explicit(&shared->step_count[d], count + 1, memory_order_release);
  return OK;
}

/* Readings wait for this lock, so that none misses power that is being set. */
API void fakenvml_follow(void *lock) { writer = lock; }

/* From now on the GPU draws this many watts. */
API int fakenvml_set_power(int d, double watts) {
  return has_gpu(d) ? fakenvml_set_power_at(d, now(), watts) : INVALID_ARGUMENT;
}

/* The exact energy from the start to a time, in J. */
API double fakenvml_true_energy(int d, double time_s) {
  return has_gpu(d) ? true_joules(d, time_s) : NAN;
}

API double fakenvml_now(void) { return start() ? NAN : now(); }

API double fakenvml_start(void) { return start() ? NAN : shared->start_s; }

API int fakenvml_advance(double seconds) {
  if (start() || !shared->is_virtual) return INVALID_ARGUMENT;
  atomic_fetch_add(&shared->virtual_ns, (uint64_t)(seconds * 1e9 + 0.5));
  return OK;
}

API int fakenvml_fault(const char *text) { return start() ? INVALID_ARGUMENT : add_fault(text); }

API int fakenvml_set(int d, const char *key, const char *value) {
  return has_gpu(d) ? set_key(d, key, value) : INVALID_ARGUMENT;
}

/* ------------------------------------------------------------------- what pynvml calls: NVML */

static result injected(const char *function, int d) {
  if (!opened) return UNINITIALIZED;
  uint64_t call = atomic_fetch_add(&shared->calls, 1);
  double elapsed_s = now() - shared->start_s;
  for (int i = 0; i < shared->fault_count; i++) {
    fault_t *f = &shared->faults[i];
    size_t length = strcspn(f->function, "*");
    int same = f->function[length] ? !strncmp(f->function, function, length)
                                   : !strcmp(f->function, function);
    if (same && (f->gpu < 0 || f->gpu == d) && elapsed_s >= f->from_s && elapsed_s < f->to_s &&
        (f->every <= 1 || call % (uint64_t)f->every == 0))
      return f->code;
  }
  return OK;
}

static int is_slice(const void *handle) {
  return (const char *)handle >= slices && (const char *)handle < slices + MAX_GPUS;
}

static int gpu_of(const void *handle) {
  for (int d = 0; d < gpu_count; d++)
    if (handle == &gpus[d] || handle == &slices[d]) return d;
  return -1;
}

#define SYSTEM(d) \
  result fault = injected(__func__, d); \
  if (fault) return fault;
#define DEVICE(handle) \
  int d = gpu_of(handle); \
  if (d < 0) return opened ? INVALID_ARGUMENT : UNINITIALIZED; \
  SYSTEM(d) \
  gpu_t *g = &gpus[d]; \
  (void)g;
#define BOARD(handle) DEVICE(handle) if (is_slice(handle)) return NOT_SUPPORTED;
/* A function that drivers before this one lack. */
#define SINCE(major) if (driver_major < (major)) return FUNCTION_NOT_FOUND;

static result put(char *out, unsigned size, const char *text) {
  return (unsigned)snprintf(out, size, "%s", text) < size ? OK : INSUFFICIENT_SIZE;
}

API result nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  result status = start();
  if (status) return status;
  opened++;
  status = injected(__func__, -1);
  if (status) opened--;
  return status;
}
API result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API result nvmlShutdown(void) {
  if (!opened) return UNINITIALIZED;
  opened--;
  return OK;
}
API const char *nvmlErrorString(result status) {
  static char text[32];
  snprintf(text, sizeof text, "Error %d", status); /* pynvml has words for the common codes */
  return text;
}

API result nvmlSystemGetDriverVersion(char *out, unsigned size) {
  SYSTEM(-1) return put(out, size, driver_version);
}
API result nvmlSystemGetNVMLVersion(char *out, unsigned size) {
  SYSTEM(-1)
  char text[96];
  snprintf(text, sizeof text, "12.%s", driver_version);
  return put(out, size, text);
}
API result nvmlSystemGetCudaDriverVersion_v2(int *version) {
  SYSTEM(-1)
  *version = 12040;
  return OK;
}

API result nvmlDeviceGetCount_v2(unsigned *count) {
  SYSTEM(-1)
  *count = gpu_count;
  return OK;
}
API result nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  SYSTEM((int)index)
  if (index >= (unsigned)gpu_count) return INVALID_ARGUMENT;
  *handle = &gpus[index];
  return OK;
}
static void slice_uuid(int d, char *out, size_t size) {
  snprintf(out, size, "MIG-fa4e0000-0000-5000-8000-%012d", d);
}
API result nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  SYSTEM(-1)
  for (int d = 0; d < gpu_count; d++) {
    char slice[80];
    slice_uuid(d, slice, sizeof slice);
    if (!strcmp(uuid, gpus[d].uuid)) *handle = &gpus[d];
    else if (!strcmp(uuid, slice) && gpus[d].mig == 1) *handle = &slices[d];
    else continue;
    return injected(__func__, d);
  }
  return NOT_FOUND;
}
API result nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, void **handle) {
  SYSTEM(-1)
  for (int d = 0; d < gpu_count; d++) {
    if (strcasecmp(gpus[d].bus_id, bus_id)) continue;
    *handle = &gpus[d];
    return OK;
  }
  return NOT_FOUND;
}
API result nvmlDeviceGetIndex(void *handle, unsigned *index) {
  BOARD(handle)
  *index = d;
  return OK;
}

API result nvmlDeviceIsMigDeviceHandle(void *handle, unsigned *answer) {
  DEVICE(handle)
  *answer = is_slice(handle);
  return OK;
}
API result nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *handle, void **board) {
  DEVICE(handle)
  if (!is_slice(handle)) return INVALID_ARGUMENT;
  *board = g;
  return OK;
}
API result nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **slice) {
  BOARD(handle)
  if (g->mig != 1 || index) return NOT_FOUND;
  *slice = &slices[d];
  return OK;
}
API result nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
  BOARD(handle)
  *count = g->mig < 0 ? 0 : 7;
  return OK;
}
API result nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
  BOARD(handle)
  if (g->mig < 0) return NOT_SUPPORTED;
  *current = *pending = g->mig;
  return OK;
}

API result nvmlDeviceGetName(void *handle, char *out, unsigned size) {
  DEVICE(handle)
  char text[128];
  snprintf(text, sizeof text, is_slice(handle) ? "%s MIG 1g.5gb" : "%s", g->name);
  return put(out, size, text);
}
API result nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
  DEVICE(handle)
  char text[80];
  slice_uuid(d, text, sizeof text);
  return put(out, size, is_slice(handle) ? text : g->uuid);
}
API result nvmlDeviceGetPciInfo_v3(void *handle, pci_t *out) {
  BOARD(handle)
  *out = (pci_t){.bus = d + 1, .pci_device = 0x20B010DE};
  strcpy(out->bus_id, g->bus_id);
  memcpy(out->bus_id_legacy, g->bus_id + 4, 12);
  return OK;
}
API result nvmlDeviceGetArchitecture(void *handle, unsigned *arch) {
  BOARD(handle)
  *arch = g->arch;
  return OK;
}
API result nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  BOARD(handle)
  *major = g->cc_major;
  *minor = g->cc_minor;
  return OK;
}
static unsigned long long memory_bytes(const void *handle, const gpu_t *g) {
  return (unsigned long long)(g->mem_gib * (1 << 30)) / (is_slice(handle) ? 8 : 1);
}
API result nvmlDeviceGetMemoryInfo(void *handle, memory_t *out) {
  DEVICE(handle)
  unsigned long long total = memory_bytes(handle, g), used = 1 << 28;
  *out = (memory_t){total, total - used, used};
  return OK;
}
API result nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *out) {
  DEVICE(handle)
  if (out->version != 0x2000028) return VERSION_MISMATCH;
  unsigned long long total = memory_bytes(handle, g), used = 1 << 28, reserved = 1 << 27;
  *out = (memory_v2_t){out->version, total, reserved, total - used - reserved, used};
  return OK;
}

API result nvmlDeviceGetSerial(void *handle, char *out, unsigned size) {
  BOARD(handle)
  return put(out, size, g->serial);
}
API result nvmlDeviceGetVbiosVersion(void *handle, char *out, unsigned size) {
  BOARD(handle)
  return put(out, size, g->vbios);
}
API result nvmlDeviceGetPerformanceState(void *handle, int *state) {
  BOARD(handle)
  *state = g->pstate;
  return OK;
}

API result nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *mw) {
  BOARD(handle)
  *mw = g->limit_w * 1e3;
  return OK;
}
API result nvmlDeviceGetPowerManagementLimit(void *handle, unsigned *mw) {
  BOARD(handle)
  *mw = g->limit_w * 1e3;
  return OK;
}
API result nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *mw) {
  BOARD(handle)
  *mw = g->limit_w * 1e3;
  return OK;
}
API result nvmlDeviceGetEccMode(void *handle, int *current, int *pending) {
  BOARD(handle)
  if (g->ecc < 0) return NOT_SUPPORTED;
  *current = *pending = g->ecc;
  return OK;
}
API result nvmlDeviceGetPersistenceMode(void *handle, int *mode) {
  BOARD(handle)
  *mode = g->persistence;
  return OK;
}
API result nvmlDeviceGetVirtualizationMode(void *handle, int *mode) {
  BOARD(handle)
  *mode = g->virtualization;
  return OK;
}
API result nvmlDeviceGetCurrPcieLinkGeneration(void *handle, unsigned *out) {
  BOARD(handle)
  *out = g->pcie_gen;
  return OK;
}
API result nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *out) {
  BOARD(handle)
  *out = g->pcie_width;
  return OK;
}
API result nvmlDeviceGetPowerUsage(void *handle, unsigned *mw) {
  BOARD(handle)
  /* Ada's usage was instant in driver 530 only (Yang, Adamek, Armour, SC'24). */
  int average = g->usage_is_avg && (g->arch != 8 || driver_major != 530);
  double time_s = settled();
  double watts = average ? average_watts(d, time_s) : instant_watts(d, time_s);
  *mw = lround(watts * 1e3);
  return OK;
}
API result nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *mj) {
  BOARD(handle)
  if (!g->energy) return NOT_SUPPORTED;
  *mj = counter_mj(d, settled());
  return OK;
}
static unsigned long long held_down_ns(int d, unsigned long long reasons) {
  gpu_t *g = &gpus[d];
  double until_s = fmin(now() - shared->start_s, g->throttle_to_s);
  double held_s = g->throttle & reasons ? fmax(0, until_s - g->throttle_from_s) : 0;
  return held_s * 1e9;
}
static const struct { unsigned field, reasons; int since; } held_down[] = {
  {74, 0x04, 0}, {75, 0x60, 0}, {76, 0x10, 0}, {269, 0x20, 570}, {270, 0x40, 570}, {271, 0x80, 570},
};
static int held_down_field(unsigned field, int d, unsigned long long *ns) {
  for (size_t i = 0; i < sizeof held_down / sizeof *held_down; i++) {
    if (held_down[i].field != field || driver_major < held_down[i].since) continue;
    *ns = held_down_ns(d, held_down[i].reasons);
    return 1;
  }
  return 0;
}
API result nvmlDeviceGetViolationStatus(void *handle, int policy, violation_t *out) {
  BOARD(handle)
  if (policy < 0 || policy > 2) return NOT_SUPPORTED;
  unsigned long long reasons = policy == 0 ? 0x04 : policy == 1 ? 0x60 : 0x10;
  *out = (violation_t){epoch_us(now()), held_down_ns(d, reasons)};
  return OK;
}
API result nvmlDeviceGetFieldValues(void *handle, int count, field_t *fields) {
  BOARD(handle)
  double time_s = settled();
  for (field_t *f = fields; f < fields + count; f++) {
    f->timestamp_us = epoch_us(time_s);
    f->latency_us = 5;
    f->status = f->scope && !(f->scope == 1 && g->module_w) ? NOT_SUPPORTED : OK;
    f->type = 1; /* unsigned int */
    f->value.ull = 0;
    if (f->status) continue;
    if ((f->field == 83 || f->field == 191) && g->energy) {
      f->type = 3; /* unsigned long long */
      f->value.ull = counter_mj(d, time_s);
    } else if (f->field == 82 && g->arch != 4) {
      f->value.ui = 40;
    } else if (held_down_field(f->field, d, &f->value.ull)) {
      f->type = 3;
    } else if (driver_major < 530) {
      f->status = NOT_SUPPORTED; /* what follows came with it */
    } else if (f->field == 185 && g->avg_update_ms > 0) {
      f->value.ui = lround(average_watts(d, time_s) * 1e3);
    } else if (f->field == 186 && (g->instant_field || f->scope)) {
      f->value.ui = lround((instant_watts(d, time_s) + f->scope * g->module_w) * 1e3);
    } else {
      f->status = NOT_SUPPORTED;
    }
  }
  return OK;
}

static int throttled(const gpu_t *g) {
  double elapsed_s = now() - shared->start_s;
  return elapsed_s >= g->throttle_from_s && elapsed_s < g->throttle_to_s;
}
static unsigned long long event_reasons(int d) {
  int idle = mean_watts(d, now(), 100) < gpus[d].idle_w + 5;
  return (throttled(&gpus[d]) ? gpus[d].throttle : 0) | idle;
}
API result nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *mask) {
  BOARD(handle)
  SINCE(535)
  *mask = event_reasons(d);
  return OK;
}
API result nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *mask) {
  BOARD(handle)
  *mask = event_reasons(d);
  return OK;
}
API result nvmlDeviceGetClockInfo(void *handle, int type, unsigned *mhz) {
  BOARD(handle)
  *mhz = type == 2 ? g->mem_mhz : throttled(g) ? g->sm_mhz / 2 : g->sm_mhz;
  return OK;
}
API result nvmlDeviceGetMaxClockInfo(void *handle, int type, unsigned *mhz) {
  BOARD(handle)
  *mhz = type == 2 ? g->mem_mhz : g->sm_mhz;
  return OK;
}
static int celsius(int d) {
  return gpus[d].temp_c + gpus[d].heat_c_per_w * (mean_watts(d, now(), 10e3) - gpus[d].idle_w);
}
API result nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *out) {
  BOARD(handle)
  if (sensor) return INVALID_ARGUMENT;
  *out = celsius(d);
  return OK;
}
API result nvmlDeviceGetTemperatureV(void *handle, temperature_t *out) {
  BOARD(handle)
  SINCE(570)
  if (out->version != 0x100000c) return VERSION_MISMATCH;
  out->celsius = celsius(d);
  return OK;
}
API result nvmlDeviceGetUtilizationRates(void *handle, utilization_t *out) {
  BOARD(handle)
  double share = (mean_watts(d, now(), 1000) - g->idle_w) / (g->limit_w - g->idle_w);
  out->gpu = 100 * fmin(1, fmax(0, share));
  out->memory = out->gpu / 2;
  return OK;
}

enum { COMPUTE, GRAPHICS, MPS };
static result processes(int d, int kind, unsigned *count, process_t *out) {
  gpu_t *g = &gpus[d];
  int foreign = g->extra_pid && g->extra_kind == kind &&
                now() - shared->start_s >= g->extra_pid_from_s;
  unsigned own = kind == COMPUTE, needed = own + foreign;
  int enough = !needed || (out && *count >= needed);
  *count = needed;
  if (!enough) return INSUFFICIENT_SIZE;
  if (own) out[0] = (process_t){getpid(), 1 << 28, ~0u, ~0u};
  if (foreign) out[own] = (process_t){g->extra_pid, 1 << 27, ~0u, ~0u};
  return OK;
}
/* As torch asks, whose process is the only one that it shall see. */
API result nvmlDeviceGetComputeRunningProcesses(void *handle, unsigned *count, void *out) {
  DEVICE(handle)
  typedef struct { unsigned pid; unsigned long long memory; } process_v1_t;
  int enough = out && *count >= 1;
  *count = 1;
  if (enough) *(process_v1_t *)out = (process_v1_t){getpid(), 1 << 28};
  return enough ? OK : INSUFFICIENT_SIZE;
}
API result nvmlDeviceGetNvLinkRemoteDeviceType(void *handle, unsigned link, int *type) {
  BOARD(handle)
  (void)link, (void)type;
  return NOT_SUPPORTED;
}
API result nvmlDeviceGetNvLinkRemotePciInfo_v2(void *handle, unsigned link, pci_t *out) {
  BOARD(handle)
  (void)link, (void)out;
  return NOT_SUPPORTED;
}
#define PROCESSES(name, kind) \
  API result nvmlDeviceGet##name##RunningProcesses_v2(void *handle, unsigned *count, \
                                                      process_t *out) { \
    DEVICE(handle) \
    return processes(d, kind, count, out); \
  } \
  API result nvmlDeviceGet##name##RunningProcesses_v3(void *handle, unsigned *count, \
                                                      process_t *out) { \
    DEVICE(handle) \
    SINCE(510) \
    return processes(d, kind, count, out); \
  }
PROCESSES(Compute, COMPUTE)
PROCESSES(Graphics, GRAPHICS)
PROCESSES(MPSCompute, MPS)
