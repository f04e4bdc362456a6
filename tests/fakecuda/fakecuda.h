/* What the parts of the modelled GPU share; README.md says what is modelled. */
#pragma once
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default")))

typedef int64_t ns_t; /* of CLOCK_MONOTONIC, which is the clock of the fake NVML, too */

/* Numbers of cudaError_t, which CUresult shares where it has them. */
enum {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101,
  NO_IMAGE = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILURE = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURED_EVENT = 907
};

enum { KERNEL, COPY, FILL };
enum { NO_CAPTURE, CAPTURE, INVALID_CAPTURE }; /* cudaStreamCaptureStatus */
enum { TO_DEVICE = 1, TO_HOST = 2, ON_DEVICE = 8 }; /* CUpti_ActivityMemcpyKind */

/* One piece of work on a device: a kernel, a copy or a fill. */
typedef struct {
  const char *name;
  ns_t length;
  int kind, direction;
  size_t bytes;
} work_t;

typedef struct { work_t *works; size_t count, room; } graph_t;

typedef struct {
  char name[96];
  unsigned char uuid[16];
  int index; /* among all boards, those that this process does not see, too */
  int major, minor, multiprocessors, l2_bytes, clock_mhz;
  size_t memory_bytes;
  /* Rates that a kernel reaches: TFLOP/s, and GB/s, which are bytes per ns. */
  double fp32_tflops, tf32_tflops, fp16_tflops, bf16_tflops, bandwidth_gb_per_s, pcie_gb_per_s;
  double idle_w, busy_w;
  ns_t free_at;                           /* when all that was launched will be done */
  ns_t ends[1024]; size_t launched;       /* the launches that fit into its queue */
  size_t held_bytes;
  ns_t busy, slice, slice_busy;           /* time at work: ever, and in this slice of the power */
} board_t;

typedef struct {
  board_t *board;
  ns_t end; /* when what was launched on it will be done */
  int capturing; /* a status of a capture */
  unsigned long long capture_id;
  graph_t *graph;
} stream_t;

extern pthread_mutex_t fakecuda_lock;

ns_t now(void);
void wait_until(ns_t time);

int board_count(void);
board_t *board_at(int device);
board_t *current_board(void);
stream_t *stream_of(void *stream);

/* Remember and give an error; SUCCESS is given as it is. */
int fail(int code);
/* What every call gives once the device is broken; else SUCCESS. */
int broken(void);
/* A call that a capture forbids: it ends the capture, as CUDA's does. */
int forbidden(const char *call);
int any_capture(void);

/* Put work on a stream: it begins when the device is free. Gives the error of the launch. */
int submit(stream_t *stream, work_t work);
/* The same for a whole recorded graph, which is one launch. */
int submit_graph(stream_t *stream, const graph_t *graph);
void wait_for(stream_t *stream);
void free_graph(graph_t *graph);

/* How long a kernel takes for bytes and operations. */
ns_t moving(const board_t *board, double bytes);
ns_t computing(double flops, double tflops, ns_t moving);
/* Launch a kernel whose arguments have no layout that is known here. */
int kernel_launch(void *stream, const char *name, const unsigned grid[3], const unsigned block[3]);

/* Tell CUPTI of a piece of work. */
void trace(const work_t *work, const stream_t *stream, ns_t start, ns_t end);

/* Whether this is the call on which a configured fault strikes. */
int strikes(const char *fault);
