/* CUPTI's activity records of the modelled work, as Kineto asks for them. */
#include "fakecuda.h"
#include <cuda.h>
#include <cupti.h>
#include <string.h>
#include <time.h>

static CUpti_BuffersCallbackRequestFunc request;
static CUpti_BuffersCallbackCompleteFunc complete;
static CUpti_TimestampCallbackFunc clock_of_kineto;
static double ticks_per_ns = 1;
static char enabled[256];
static uint32_t correlation = 1000;
static uint8_t *buffer;
static size_t buffer_size, buffer_used;
static pthread_mutex_t buffer_lock = PTHREAD_MUTEX_INITIALIZER;
/* What Kineto says an operation is, kind by kind, innermost last. */
static _Thread_local uint64_t external[16][64];
static _Thread_local int depth[16];

/* Both clocks at one moment: again, if this thread had to wait between the two. */
static ns_t both(CUpti_TimestampCallbackFunc other, uint64_t *ticks) {
  ns_t before, after;
  int tries = 0;
  do before = now(), *ticks = other(), after = now();
  while (after - before > 2000 && ++tries < 10);
  return before;
}

/* A time of our clock on Kineto's, which counts cycles of the CPU. */
static uint64_t on_kineto(ns_t time) {
  uint64_t ticks;
  if (!clock_of_kineto) return time;
  ns_t moment = both(clock_of_kineto, &ticks);
  return ticks + (int64_t)((time - moment) * ticks_per_ns);
}

static void *append(size_t size) {
  if (buffer && buffer_used + size + 8 > buffer_size) {
    complete(NULL, 0, buffer, buffer_size, buffer_used);
    buffer = NULL;
  }
  if (!buffer) {
    size_t records = 0;
    request(&buffer, &buffer_size, &records);
    buffer_used = 0;
  }
  void *record = buffer + buffer_used;
  buffer_used += (size + 7) / 8 * 8;
  return memset(record, 0, size);
}

/* A record of each kind comes before that of the work. */
static void correlate(uint32_t id) {
  for (int kind = 15; kind >= 0; kind--) {
    if (depth[kind] <= 0 || depth[kind] > 64) continue;
    CUpti_ActivityExternalCorrelation *record = append(sizeof *record);
    record->kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
    record->externalKind = kind;
    record->externalId = external[kind][depth[kind] - 1];
    record->correlationId = id;
  }
}

void trace(const work_t *work, const stream_t *stream, ns_t start, ns_t end) {
  if (!request || !enabled[CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL]) return;
  pthread_mutex_lock(&buffer_lock);
  uint32_t id = ++correlation, stream_id = 7 + ((uintptr_t)stream >> 4) % 1000;
  uint64_t from = on_kineto(start), to = from + (uint64_t)((end - start) * ticks_per_ns);
  uint32_t device = 0;
  while (board_at(device) != stream->board) device++;
  correlate(id);
#define COMMON(type, activity) \
  type *r = append(sizeof *r); \
  r->kind = activity, r->start = from, r->end = to, r->contextId = 1; \
  r->deviceId = device, r->correlationId = id, r->streamId = stream_id;
  if (work->kind == COPY) {
    COMMON(CUpti_ActivityMemcpy6, CUPTI_ACTIVITY_KIND_MEMCPY)
    r->copyKind = work->direction;
    r->srcKind = work->direction == TO_DEVICE ? 1 : 3; /* CUpti_ActivityMemoryKind */
    r->dstKind = work->direction == TO_HOST ? 1 : 3;
    r->bytes = work->bytes;
  } else if (work->kind == FILL) {
    COMMON(CUpti_ActivityMemset4, CUPTI_ACTIVITY_KIND_MEMSET)
    r->bytes = work->bytes;
    r->memoryKind = 3;
  } else {
    COMMON(CUpti_ActivityKernel10, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)
    r->gridX = r->gridY = r->gridZ = r->blockY = r->blockZ = 1;
    r->blockX = 128;
    r->registersPerThread = 32;
    r->name = work->name;
  }
  pthread_mutex_unlock(&buffer_lock);
}

API CUptiResult cuptiGetVersion(uint32_t *version) { *version = CUPTI_API_VERSION; return 0; }
API CUptiResult cuptiSubscribe(CUpti_SubscriberHandle *out, CUpti_CallbackFunc call, void *data) {
  (void)call, (void)data;
  *out = (void *)1;
  return 0;
}
API CUptiResult cuptiActivityRegisterCallbacks(CUpti_BuffersCallbackRequestFunc ask,
                                               CUpti_BuffersCallbackCompleteFunc give) {
  request = ask, complete = give;
  return 0;
}
API CUptiResult cuptiActivityRegisterTimestampCallback(CUpti_TimestampCallbackFunc given) {
  uint64_t first, last;
  ns_t start = both(given, &first);
  nanosleep(&(struct timespec){0, 10000000}, NULL);
  ns_t end = both(given, &last);
  ticks_per_ns = (double)(last - first) / (end - start);
  clock_of_kineto = given;
  return 0;
}
API CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  if (strikes("cupti")) enabled[0] = 1; /* from here on, for good */
  if (enabled[0]) return CUPTI_ERROR_INSUFFICIENT_PRIVILEGES;
  enabled[kind & 255] = 1;
  return 0;
}
API CUptiResult cuptiActivityDisable(CUpti_ActivityKind kind) {
  enabled[kind & 255] = 0;
  return 0;
}
API CUptiResult cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind,
                                                       uint64_t id) {
  if (depth[kind & 15] < 64) external[kind & 15][depth[kind & 15]] = id;
  depth[kind & 15]++;
  return 0;
}
API CUptiResult cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind,
                                                      uint64_t *id) {
  int last = --depth[kind & 15];
  if (id && last >= 0 && last < 64) *id = external[kind & 15][last];
  return 0;
}
API CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext context, uint32_t stream,
                                                  size_t *dropped) {
  (void)context, (void)stream;
  *dropped = 0;
  return 0;
}
API CUptiResult cuptiGetResultString(CUptiResult result, const char **text) {
  *text = result == CUPTI_ERROR_INSUFFICIENT_PRIVILEGES ? "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"
                                                        : "CUPTI_ERROR";
  return 0;
}
API CUptiResult cuptiActivityFlushAll(uint32_t flag) {
  (void)flag;
  pthread_mutex_lock(&buffer_lock);
  uint8_t *full = buffer;
  buffer = NULL;
  if (full) complete(NULL, 0, full, buffer_size, buffer_used);
  pthread_mutex_unlock(&buffer_lock);
  return 0;
}

static size_t size_of(const CUpti_Activity *record) {
  switch (record->kind) {
    case CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION: return sizeof(CUpti_ActivityExternalCorrelation);
    case CUPTI_ACTIVITY_KIND_MEMCPY: return sizeof(CUpti_ActivityMemcpy6);
    case CUPTI_ACTIVITY_KIND_MEMSET: return sizeof(CUpti_ActivityMemset4);
    default: return sizeof(CUpti_ActivityKernel10);
  }
}
API CUptiResult cuptiActivityGetNextRecord(uint8_t *start, size_t valid, CUpti_Activity **record) {
  uint8_t *next = start;
  if (*record) next = (uint8_t *)*record + (size_of(*record) + 7) / 8 * 8;
  if (next >= start + valid) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  *record = (CUpti_Activity *)next;
  return 0;
}
