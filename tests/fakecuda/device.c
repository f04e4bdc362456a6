/* The device: its clock, its queue, its power, its memory's size, and its faults. */
#include "fakecuda.h"
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BOARDS 8
#define MAX_FAULTS 16
#define MAX_LOG (1u << 20)
#define QUEUE (sizeof((board_t *)0)->ends / sizeof(ns_t))

/* From the call to the kernel's first instruction, and what each kernel lasts at least: some
 * microseconds on every GPU. */
static const ns_t ARRIVAL = 2000, LEAST = 1500;
/* The power of the fake NVML is constant for so long: its sensors look at 10 ms and more. */
static const ns_t SLICE = 500000;

pthread_mutex_t fakecuda_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static board_t boards[MAX_BOARDS];
static board_t *visible[MAX_BOARDS];
static int visible_count, started;
static stream_t default_streams[MAX_BOARDS];
static struct { char name[32]; long nth, calls; } faults[MAX_FAULTS];
static int fault_count, broken_code;
static _Thread_local int current, last_error;
static const char *names[MAX_LOG];
static unsigned name_count;
static char violations[64][96];
static int violation_count;
static stream_t *captured; /* the stream that is being captured; torch captures one at a time */
static int (*power_at)(int gpu, double time_s, double watts);
static int (*nvml_fault)(const char *text);

ns_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* A sleep wakes up late, so that the end of a wait is a loop, as CUDA's is by default. */
void wait_until(ns_t time) {
  ns_t left;
  while ((left = time - now()) > 0) {
    if (left < 200000) continue;
    left -= 100000;
    nanosleep(&(struct timespec){left / 1000000000, left % 1000000000}, NULL);
  }
}

/* ------------------------------------------------------------------------- configuration */

static void set_uuid(board_t *board, const char *text) {
  for (int i = 0; *text && i < 16; text++) {
    unsigned byte;
    if (*text == '-' || sscanf(text, "%2x", &byte) != 1) continue;
    board->uuid[i++] = byte;
    text++;
  }
}

static int set_key(board_t *board, const char *key, const char *value) {
#define NUMBER(field) if (!strcmp(key, #field)) { board->field = atof(value); return 1; }
  NUMBER(major) NUMBER(minor) NUMBER(multiprocessors) NUMBER(l2_bytes) NUMBER(clock_mhz)
  NUMBER(memory_bytes) NUMBER(fp32_tflops) NUMBER(tf32_tflops) NUMBER(fp16_tflops)
  NUMBER(bf16_tflops) NUMBER(bandwidth_gb_per_s) NUMBER(pcie_gb_per_s) NUMBER(idle_w)
  NUMBER(busy_w)
#undef NUMBER
  if (!strcmp(key, "uuid")) return set_uuid(board, value), 1;
  return 0;
}

/* fault = NAME[:NTH]: at which call of its kind it strikes; the first unless told. */
static int add_fault(const char *text) {
  if (fault_count == MAX_FAULTS) return 0;
  faults[fault_count].nth = 1;
  return sscanf(text, "%31[^:]:%ld", faults[fault_count].name, &faults[fault_count].nth) > 0 &&
         ++fault_count;
}

/* Lines KEY = VALUE; "gpu" begins a board, and its value is the name that CUDA tells. */
static void configure(void) {
  const char *path = getenv("FAKECUDA_CONFIG");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[256], key[64], value[96];
  int count = 0;
  if (!file) {
    fprintf(stderr, "fakecuda: FAKECUDA_CONFIG names no file that can be read\n");
    return;
  }
  while (fgets(line, sizeof line, file)) {
    if (sscanf(line, " %63[^= ] = %95[^\n]", key, value) != 2) continue;
    int known = 1;
    if (!strcmp(key, "gpu") && count < MAX_BOARDS) {
      boards[count].index = count;
      snprintf(boards[count++].name, sizeof boards->name, "%s", value);
    } else if (!strcmp(key, "fault")) known = add_fault(value);
    else known = count && set_key(&boards[count - 1], key, value);
    if (!known) fprintf(stderr, "fakecuda: cannot read '%s = %s'\n", key, value);
  }
  fclose(file);
  const char *chosen = getenv("CUDA_VISIBLE_DEVICES");
  if (!chosen) {
    for (; visible_count < count; visible_count++) visible[visible_count] = &boards[visible_count];
    return;
  }
  char *copy = strdup(chosen), *rest = copy, *word;
  while ((word = strsep(&rest, ",")) && *word && visible_count < MAX_BOARDS) {
    board_t *found = NULL;
    if (!strncmp(word, "GPU-", 4)) {
      board_t asked = {0};
      set_uuid(&asked, word + 4);
      for (int i = 0; i < count; i++)
        if (!memcmp(asked.uuid, boards[i].uuid, 16)) found = &boards[i];
    } else if (isdigit(*word) && atoi(word) < count) found = &boards[atoi(word)];
    if (!found) break; /* CUDA ignores what follows a wrong name, too */
    visible[visible_count++] = found;
  }
  free(copy);
}

static void start(void) {
  if (__atomic_load_n(&started, __ATOMIC_ACQUIRE)) return;
  pthread_mutex_lock(&start_lock);
  if (!started) {
    configure();
    for (int i = 0; i < visible_count; i++) default_streams[i].board = visible[i];
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (nvml) {
      power_at = (int (*)(int, double, double))dlsym(nvml, "fakenvml_set_power_at");
      nvml_fault = (int (*)(const char *))dlsym(nvml, "fakenvml_fault");
      void (*follow)(void *) = (void (*)(void *))dlsym(nvml, "fakenvml_follow");
      if (follow) follow(&fakecuda_lock);
    }
    __atomic_store_n(&started, 1, __ATOMIC_RELEASE);
  }
  pthread_mutex_unlock(&start_lock);
}

int board_count(void) { start(); return visible_count; }

board_t *board_at(int device) {
  start();
  return device >= 0 && device < visible_count ? visible[device] : NULL;
}

board_t *current_board(void) { start(); return visible[current]; }

stream_t *stream_of(void *stream) {
  start();
  /* 0, 1 and 2 name the default stream of the current device. */
  return (uintptr_t)stream <= 2 ? &default_streams[current] : stream;
}

API int cudaSetDevice(int device) {
  if (!board_at(device)) return fail(INVALID_DEVICE);
  current = device;
  return SUCCESS;
}
API int cudaGetDevice(int *device) { *device = current; return SUCCESS; }

/* -------------------------------------------------------------------------------- errors */

int fail(int code) {
  if (code) last_error = code;
  return code;
}
int broken(void) { return fail(broken_code); }

API int cudaGetLastError(void) {
  int code = broken_code ? broken_code : last_error;
  last_error = SUCCESS;
  return code;
}
API int cudaPeekAtLastError(void) { return broken_code ? broken_code : last_error; }

API const char *cudaGetErrorString(int code) {
  switch (code) {
    case SUCCESS: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case NO_DEVICE: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    case NO_IMAGE: return "no kernel image is available for execution on the device";
    case INVALID_HANDLE: return "invalid resource handle";
    case NOT_READY: return "device not ready";
    case ILLEGAL_ADDRESS: return "an illegal memory access was encountered";
    case LAUNCH_FAILURE: return "unspecified launch failure";
    case CAPTURE_UNSUPPORTED: return "operation not permitted when stream is capturing";
    case CAPTURE_INVALIDATED: return "operation failed due to a previous error during capture";
    case CAPTURED_EVENT:
      return "operation not permitted on an event last recorded in a capturing stream";
    default: return "unknown error";
  }
}
API const char *cudaGetErrorName(int code) {
  static _Thread_local char text[32];
  snprintf(text, sizeof text, "cudaError %d", code);
  return text;
}

int strikes(const char *fault) {
  int struck = 0;
  for (int i = 0; i < fault_count; i++)
    if (!strcmp(faults[i].name, fault) &&
        __atomic_add_fetch(&faults[i].calls, 1, __ATOMIC_RELAXED) == faults[i].nth)
      struck = 1;
  return struck;
}

/* A fault that stays: what a kernel did (Xid 31), or a device that fell off the bus (Xid 79). */
static void break_device(int in_graph) {
  if (strikes("illegal_address") | (in_graph && strikes("illegal_address_in_graph")))
    broken_code = ILLEGAL_ADDRESS;
  if (strikes("lost") | (in_graph && strikes("lost_in_graph"))) {
    broken_code = LAUNCH_FAILURE;
    if (nvml_fault) nvml_fault("nvmlDevice*:-1:15:0"); /* NVML_ERROR_GPU_IS_LOST */
  }
}

int any_capture(void) { return captured != NULL; }

int forbidden(const char *call) {
  pthread_mutex_lock(&fakecuda_lock);
  if (violation_count < 64) snprintf(violations[violation_count++], sizeof *violations, "%s", call);
  if (captured) captured->capturing = INVALID_CAPTURE;
  pthread_mutex_unlock(&fakecuda_lock);
  return fail(CAPTURE_UNSUPPORTED);
}

/* ------------------------------------------------------------------------- time and power */

ns_t moving(const board_t *board, double bytes) { return bytes / board->bandwidth_gb_per_s; }

/* Computing hides behind moving, or moving behind computing. */
ns_t computing(double flops, double tflops, ns_t moving) {
  ns_t length = flops / (tflops * 1e3);
  return length > moving ? length : moving;
}

/* Let the fake NVML see the work: in each slice of time, the power of its busy share. */
static void draw(board_t *board, ns_t from, ns_t to) {
  board->busy += to - from;
  while (power_at && from < to) {
    ns_t slice = from / SLICE, end = (slice + 1) * SLICE;
    if (slice != board->slice) board->slice = slice, board->slice_busy = 0;
    ns_t stop = to < end ? to : end;
    board->slice_busy += stop - from;
    double share = (double)board->slice_busy / SLICE;
    double watts = board->idle_w + share * (board->busy_w - board->idle_w);
    int refused = power_at(board->index, slice * SLICE * 1e-9, watts);
    refused |= power_at(board->index, end * 1e-9, board->idle_w);
    static int told;
    if (refused && !told)
      told = fprintf(stderr, "fakecuda: the fake NVML takes no more power: its trace is full\n");
    from = stop;
  }
}

static void record(graph_t *graph, work_t work) {
  if (graph->count == graph->room) {
    graph->room = graph->room ? 2 * graph->room : 512;
    graph->works = realloc(graph->works, graph->room * sizeof work);
  }
  graph->works[graph->count++] = work;
}

void free_graph(graph_t *graph) {
  if (graph) free(graph->works);
  free(graph);
}

/* Run work one piece after the other from when the device is free; one launch. */
static void run(stream_t *stream, const work_t *works, size_t count) {
  board_t *board = stream->board;
  ns_t *place = &board->ends[board->launched++ % QUEUE];
  ns_t full = *place; /* the queue has a place again when this launch is done */
  pthread_mutex_unlock(&fakecuda_lock);
  wait_until(full);
  pthread_mutex_lock(&fakecuda_lock);
  ns_t time = now() + ARRIVAL;
  if (time < board->free_at) time = board->free_at;
  if (time < stream->end) time = stream->end; /* an event of another board */
  ns_t begin = time;
  for (const work_t *work = works; work < works + count; work++) {
    ns_t end = time + LEAST + work->length;
    if (name_count < MAX_LOG) names[name_count++] = work->name;
    trace(work, stream, time, end);
    time = end;
  }
  draw(board, begin, time);
  *place = board->free_at = stream->end = time;
}

int submit(stream_t *stream, work_t work) {
  if (broken_code) return fail(broken_code);
  pthread_mutex_lock(&fakecuda_lock);
  int code = stream->capturing == INVALID_CAPTURE ? CAPTURE_INVALIDATED : SUCCESS;
  if (stream->capturing == CAPTURE) {
    record(stream->graph, work);
  } else if (!code) {
    run(stream, &work, 1);
    break_device(0);
  }
  pthread_mutex_unlock(&fakecuda_lock);
  return fail(code);
}

int submit_graph(stream_t *stream, const graph_t *graph) {
  if (broken_code) return fail(broken_code);
  pthread_mutex_lock(&fakecuda_lock);
  run(stream, graph->works, graph->count);
  /* A fault in the middle of it, counted over its kernels. */
  for (size_t i = 0; i < graph->count && !broken_code; i++) break_device(1);
  pthread_mutex_unlock(&fakecuda_lock);
  return SUCCESS;
}

void wait_for(stream_t *stream) { wait_until(stream ? stream->end : current_board()->free_at); }

/* ------------------------------------------------------------------------------- capture */

API int cudaStreamBeginCapture(void *handle, int mode) {
  (void)mode;
  static unsigned long long ids;
  stream_t *stream = stream_of(handle);
  if ((uintptr_t)handle <= 2) return fail(CAPTURE_UNSUPPORTED);
  pthread_mutex_lock(&fakecuda_lock);
  stream->capturing = CAPTURE;
  stream->capture_id = ++ids;
  stream->graph = calloc(1, sizeof *stream->graph);
  captured = stream;
  pthread_mutex_unlock(&fakecuda_lock);
  return SUCCESS;
}

API int cudaStreamEndCapture(void *handle, void **graph) {
  stream_t *stream = stream_of(handle);
  if (!stream->capturing) return fail(INVALID_VALUE);
  pthread_mutex_lock(&fakecuda_lock);
  int invalid = stream->capturing == INVALID_CAPTURE;
  if (invalid) free_graph(stream->graph);
  *graph = invalid ? NULL : stream->graph;
  stream->capturing = NO_CAPTURE;
  captured = NULL;
  pthread_mutex_unlock(&fakecuda_lock);
  return fail(invalid ? CAPTURE_INVALIDATED : SUCCESS);
}

/* ------------------------------------------------------------- what the tests ask for */

API unsigned fakecuda_launches(void) { return name_count; }
API const char *fakecuda_launch(unsigned i) { return i < name_count ? names[i] : NULL; }
API void fakecuda_clear(void) { name_count = 0; }
API double fakecuda_busy_s(int device) {
  board_t *board = board_at(device);
  return board ? board->busy * 1e-9 : NAN;
}
API int fakecuda_violations(void) { return violation_count; }
API const char *fakecuda_violation(int i) { return i < violation_count ? violations[i] : NULL; }
