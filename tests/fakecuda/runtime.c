/* The CUDA runtime but for kernels: devices, streams, events, graphs and memory. */
#define __CUDA_INCLUDE_COMPILER_INTERNAL_HEADERS__
#include "fakecuda.h"
#include <driver_types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define DEVICE if (!board_count()) return fail(NO_DEVICE);
#define WORKING if (broken()) return broken();

/* ------------------------------------------------------------------------------- devices */

API int cudaGetDeviceCount(int *count) {
  *count = board_count();
  return *count ? SUCCESS : fail(NO_DEVICE);
}
API int cudaDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
API int cudaRuntimeGetVersion(int *version) { *version = 13000; return SUCCESS; }

/* Shared memory of a multiprocessor and of a block that asks for more, in bytes: CUDA programming
 * guide, technical specifications per compute capability. */
static int shared_bytes(const board_t *board, int of_block) {
  int kib = board->major == 6 ? 64 : board->major == 7 ? board->minor ? 64 : 96
            : board->major == 8 ? board->minor ? 100 : 164 : 228;
  if (of_block) kib = board->major == 6 ? 48 : board->major > 7 ? kib - 1 : kib;
  return kib * 1024;
}

API int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  board_t *board = board_at(device);
  if (!board) return fail(INVALID_DEVICE);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = board->multiprocessors; break;
    case cudaDevAttrComputeCapabilityMajor: *value = board->major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = board->minor; break;
    case cudaDevAttrL2CacheSize: *value = board->l2_bytes; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_bytes(board, 1); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = shared_bytes(board, 0); break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = board->major == 7 && board->minor ? 1024 : 2048; break;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
    case cudaDevAttrMaxRegistersPerBlock: *value = 65536; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrClockRate: *value = board->clock_mhz * 1000; break;
    default: *value = 0;
  }
  return SUCCESS;
}

static int properties(struct cudaDeviceProp *out, int device) {
  board_t *board = board_at(device);
  if (!board) return fail(INVALID_DEVICE);
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "%s", board->name);
  memcpy(&out->uuid, board->uuid, sizeof board->uuid);
  out->totalGlobalMem = board->memory_bytes;
  out->major = board->major;
  out->minor = board->minor;
  out->multiProcessorCount = board->multiprocessors;
  out->l2CacheSize = board->l2_bytes;
  out->sharedMemPerBlock = 48 * 1024;
  out->sharedMemPerBlockOptin = shared_bytes(board, 1);
  out->sharedMemPerMultiprocessor = shared_bytes(board, 0);
  out->regsPerBlock = out->regsPerMultiprocessor = 65536;
  out->warpSize = 32;
  out->maxThreadsPerBlock = out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
  out->maxThreadsDim[2] = 64;
  out->maxGridSize[0] = 2147483647;
  out->maxGridSize[1] = out->maxGridSize[2] = 65535;
  out->maxThreadsPerMultiProcessor = board->major == 7 && board->minor ? 1024 : 2048;
  out->maxBlocksPerMultiProcessor = 32;
  out->unifiedAddressing = out->managedMemory = out->concurrentKernels = 1;
  out->asyncEngineCount = 2;
  out->textureAlignment = 512;
  out->memPitch = 2147483647;
  out->pciBusID = board->index + 1;
  return SUCCESS;
}
API int cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
  return properties(out, device);
}
API int cudaGetDeviceProperties_v2(struct cudaDeviceProp *out, int device) {
  return properties(out, device);
}
API int cudaDeviceCanAccessPeer(int *can, int device, int peer) {
  (void)device, (void)peer;
  *can = 0;
  return SUCCESS;
}
API int cudaDeviceGetPCIBusId(char *out, int size, int device) {
  snprintf(out, size, "0000:%02X:00.0", board_at(device) ? board_at(device)->index + 1 : 0);
  return SUCCESS;
}
API int cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *function) {
  (void)function;
  DEVICE
  memset(out, 0, sizeof *out);
  out->maxThreadsPerBlock = 1024;
  out->numRegs = 32;
  out->binaryVersion = out->ptxVersion = 10 * current_board()->major + current_board()->minor;
  return SUCCESS;
}
API int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function,
                                                               int threads, size_t shared,
                                                               unsigned flags) {
  (void)function, (void)threads, (void)shared, (void)flags;
  *blocks = 2;
  return SUCCESS;
}
API int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function,
                                                      int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared,
                                                                0);
}

/* ------------------------------------------------------------------------ streams, events */

API int cudaStreamCreateWithPriority(void **out, unsigned flags, int priority) {
  (void)flags, (void)priority;
  DEVICE WORKING
  stream_t *stream = calloc(1, sizeof *stream);
  stream->board = current_board();
  *out = stream;
  return SUCCESS;
}
API int cudaStreamCreateWithFlags(void **out, unsigned flags) {
  return cudaStreamCreateWithPriority(out, flags, 0);
}
API int cudaStreamCreate(void **out) { return cudaStreamCreateWithPriority(out, 0, 0); }
API int cudaStreamGetPriority(void *stream, int *priority) {
  (void)stream;
  *priority = 0;
  return SUCCESS;
}
API int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0, *greatest = -5;
  return SUCCESS;
}
API int cudaStreamIsCapturing(void *stream, int *status) {
  *status = stream_of(stream)->capturing;
  return SUCCESS;
}
API int cudaStreamGetCaptureInfo(void *handle, int *status, unsigned long long *id, void **graph,
                                 const void **dependencies, const void **edges, size_t *count) {
  stream_t *stream = stream_of(handle);
  *status = stream->capturing;
  if (stream->capturing != CAPTURE) return SUCCESS;
  if (id) *id = stream->capture_id;
  if (graph) *graph = stream->graph;
  if (dependencies) *dependencies = NULL;
  if (edges) *edges = NULL;
  if (count) *count = 0;
  return SUCCESS;
}

API int cudaStreamSynchronize(void *handle) {
  WORKING
  if (stream_of(handle)->capturing) return forbidden("cudaStreamSynchronize");
  wait_for(stream_of(handle));
  return broken();
}
API int cudaDeviceSynchronize(void) {
  DEVICE WORKING
  if (any_capture()) return forbidden("cudaDeviceSynchronize");
  wait_for(NULL);
  return broken();
}
API int cudaStreamQuery(void *handle) {
  WORKING
  if (stream_of(handle)->capturing) return forbidden("cudaStreamQuery");
  return stream_of(handle)->end > now() ? NOT_READY : SUCCESS;
}

static _Thread_local int capture_mode; /* cudaStreamCaptureModeGlobal */
API int cudaThreadExchangeStreamCaptureMode(int *mode) {
  int before = capture_mode;
  capture_mode = *mode;
  *mode = before;
  return SUCCESS;
}
/* Whether a capture forbids what is not safe beside it; PyTorch goes round that in places. */
static int restricted(void) {
  return any_capture() && capture_mode != cudaStreamCaptureModeRelaxed;
}

typedef struct { ns_t time; int captured; } event_t;

API int cudaEventCreateWithFlags(void **event, unsigned flags) {
  (void)flags;
  WORKING
  *event = calloc(1, sizeof(event_t));
  return SUCCESS;
}
API int cudaEventCreate(void **event) { return cudaEventCreateWithFlags(event, 0); }
API int cudaEventDestroy(void *event) { free(event); return SUCCESS; }
API int cudaEventRecordWithFlags(void *handle, void *stream, unsigned flags) {
  (void)flags;
  WORKING
  event_t *event = handle;
  ns_t end = stream_of(stream)->end, time = now();
  event->captured = stream_of(stream)->capturing != NO_CAPTURE;
  event->time = end > time ? end : time;
  return SUCCESS;
}
API int cudaEventRecord(void *event, void *stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}
API int cudaEventQuery(const event_t *event) {
  WORKING
  if (restricted()) return forbidden("cudaEventQuery");
  if (event->captured) return fail(CAPTURED_EVENT);
  return event->time > now() ? NOT_READY : SUCCESS;
}
API int cudaEventSynchronize(const event_t *event) {
  WORKING
  if (restricted()) return forbidden("cudaEventSynchronize");
  if (event->captured) return fail(CAPTURED_EVENT);
  wait_until(event->time);
  return broken();
}
API int cudaEventElapsedTime(float *ms, const event_t *from, const event_t *to) {
  WORKING
  if (!from->time || !to->time) return fail(INVALID_HANDLE);
  if (from->captured || to->captured) return fail(CAPTURED_EVENT);
  if (from->time > now() || to->time > now()) return NOT_READY;
  *ms = (to->time - from->time) * 1e-6;
  return SUCCESS;
}
API int cudaStreamWaitEvent(void *handle, const event_t *event, unsigned flags) {
  (void)flags;
  WORKING
  stream_t *stream = stream_of(handle);
  /* CUDA refuses to wait in a capture for what is not in it; the fork of a capture onto another
   * stream, which CUDA allows, is not modelled. */
  if (event->time && event->captured != (stream->capturing != NO_CAPTURE))
    return forbidden("cudaStreamWaitEvent");
  if (!event->captured && stream->end < event->time) stream->end = event->time;
  return SUCCESS;
}

/* -------------------------------------------------------------------------------- graphs */

API int cudaGraphInstantiateWithFlags(void **out, const graph_t *graph, unsigned long long flags) {
  (void)flags;
  WORKING
  size_t size = graph->count * sizeof *graph->works;
  graph_t *copy = malloc(sizeof *copy);
  *copy = (graph_t){memcpy(malloc(size + 1), graph->works, size), graph->count, graph->count};
  *out = copy;
  return SUCCESS;
}
API int cudaGraphDestroy(void *graph) { free_graph(graph); return SUCCESS; }
API int cudaGraphExecDestroy(void *graph) { free_graph(graph); return SUCCESS; }
API int cudaGraphInstantiate(void **out, const graph_t *graph, unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(out, graph, flags);
}
API int cudaGraphLaunch(void *graph, void *stream) { return submit_graph(stream_of(stream), graph); }
API int cudaGraphGetNodes(void *graph, void **nodes, size_t *count) {
  (void)nodes;
  *count = ((graph_t *)graph)->count;
  return SUCCESS;
}

/* -------------------------------------------------------------------------------- memory */

/* A copy or fill on the device is carried out up to this size. Kernels compute nothing, so that
 * no value depends on the larger ones, and they would take longer here than on the device. */
static const size_t LARGEST = 1 << 20;

/* Address space only: what nothing is copied to costs no memory of the host. */
typedef struct { char *start; size_t size; board_t *board; } block_t; /* board NULL: pinned */
static block_t *blocks;
static size_t block_count, block_room;

static block_t *block_of(const void *address) {
  for (size_t i = 0; i < block_count; i++)
    if ((char *)address >= blocks[i].start && (char *)address < blocks[i].start + blocks[i].size)
      return &blocks[i];
  return NULL;
}

static int allocate(void **out, size_t size, board_t *board) {
  WORKING
  size = (size + !size + 4095) / 4096 * 4096;
  pthread_mutex_lock(&fakecuda_lock);
  int full = board && (board->held_bytes + size > board->memory_bytes || strikes("memory"));
  if (!full && block_count == block_room) {
    block_room = block_room ? 2 * block_room : 256;
    blocks = realloc(blocks, block_room * sizeof *blocks);
  }
  if (!full) {
    *out = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    blocks[block_count++] = (block_t){*out, size, board};
    if (board) board->held_bytes += size;
  }
  pthread_mutex_unlock(&fakecuda_lock);
  return fail(full ? OUT_OF_MEMORY : SUCCESS);
}

static int release(void *address) {
  pthread_mutex_lock(&fakecuda_lock);
  block_t *block = block_of(address);
  if (block) {
    if (block->board) block->board->held_bytes -= block->size;
    munmap(block->start, block->size);
    *block = blocks[--block_count];
  }
  pthread_mutex_unlock(&fakecuda_lock);
  return block || !address ? SUCCESS : fail(INVALID_VALUE);
}

API int cudaMalloc(void **out, size_t size) {
  DEVICE
  if (restricted()) return forbidden("cudaMalloc");
  return allocate(out, size, current_board());
}
API int cudaFree(void *address) {
  if (!address) return SUCCESS;
  WORKING
  if (restricted()) return forbidden("cudaFree");
  wait_for(NULL); /* it waits for all that may still use it */
  return release(address);
}
API int cudaHostAlloc(void **out, size_t size, unsigned flags) {
  (void)flags;
  return allocate(out, size, NULL);
}
API int cudaMallocHost(void **out, size_t size) { return allocate(out, size, NULL); }
API int cudaFreeHost(void *address) { return release(address); }
API int cudaHostGetDevicePointer(void **out, void *address, unsigned flags) {
  (void)flags;
  *out = address;
  return SUCCESS;
}
API int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  DEVICE WORKING
  *total = current_board()->memory_bytes;
  *free_bytes = *total - current_board()->held_bytes;
  return SUCCESS;
}
API int cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *address) {
  pthread_mutex_lock(&fakecuda_lock);
  block_t *block = block_of(address);
  memset(out, 0, sizeof *out);
  out->type = !block ? cudaMemoryTypeUnregistered
              : block->board ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
  out->devicePointer = block && block->board ? (void *)address : NULL;
  pthread_mutex_unlock(&fakecuda_lock);
  return SUCCESS;
}

static int on_device(const void *address) {
  pthread_mutex_lock(&fakecuda_lock);
  block_t *block = block_of(address);
  int found = block ? block->board ? 1 : 2 : 0; /* 2: pinned memory of the host */
  pthread_mutex_unlock(&fakecuda_lock);
  return found;
}

/* Copies to or from pageable memory of the host wait until they are done, but for small ones to
 * the device (CUDA driver API, API synchronization behavior). */
API int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *handle) {
  (void)kind;
  WORKING
  stream_t *stream = stream_of(handle);
  int target = on_device(to), source = on_device(from);
  if (stream->capturing && ((target != 1 && target != 2) || (source != 1 && source != 2)))
    return forbidden("cudaMemcpyAsync");
  int direction = target == 1 ? source == 1 ? ON_DEVICE : TO_DEVICE : TO_HOST;
  const char *name = direction == ON_DEVICE ? "Memcpy DtoD (Device -> Device)"
                     : direction == TO_DEVICE ? "Memcpy HtoD (Pageable -> Device)"
                                              : "Memcpy DtoH (Device -> Pageable)";
  double rate = stream->board->pcie_gb_per_s;
  ns_t length = direction == ON_DEVICE ? moving(stream->board, 2.0 * size) : size / rate;
  int code = submit(stream, (work_t){name, length, COPY, direction, size});
  if (code) return code;
  if (direction != ON_DEVICE || size <= LARGEST) memmove(to, from, size);
  int waits = (direction == TO_HOST && target == 0) ||
              (direction == TO_DEVICE && source == 0 && size > 65536);
  if (waits && !stream->capturing) wait_for(stream);
  return SUCCESS;
}
API int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  if (any_capture()) return forbidden("cudaMemcpy");
  int code = cudaMemcpyAsync(to, from, size, kind, NULL);
  if (!code) wait_for(stream_of(NULL));
  return code;
}
API int cudaMemsetAsync(void *address, int value, size_t size, void *handle) {
  stream_t *stream = stream_of(handle);
  int code = submit(stream, (work_t){"Memset (Device)", moving(stream->board, size), FILL, 0, size});
  if (!code && size <= LARGEST) memset(address, value, size);
  return code;
}
API int cudaMemset(void *address, int value, size_t size) {
  return cudaMemsetAsync(address, value, size, NULL);
}

