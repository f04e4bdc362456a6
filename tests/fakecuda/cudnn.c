/* cuDNN's graph interface, as far as torch asks it for attention: any graph can be run, by one
 * plan, whose one kernel is named as cuDNN 9 names its fused attention on Hopper. Versions and
 * error texts stay cuDNN's own. */
#include "fakecuda.h"
#include <stdlib.h>
#include <string.h>

enum { PLAN = 5 };                                /* cudnnBackendDescriptorType_t */
enum { HEURISTIC_RESULTS = 202, ENGINE = 300, DIMENSIONS = 902 }; /* cudnnBackendAttributeName_t */
enum { INT64 = 3, INT32 = 23 };                   /* cudnnBackendAttributeType_t */
enum { CUDNN_EXECUTION_FAILED = 5000 };           /* cudnnStatus_t */

typedef struct { void *stream; } handle_t;
typedef struct { int type; int64_t sizes[4]; } descriptor_t;

/* The last tensor of a head's width that was described: the queries' size is that of the output. */
static _Thread_local int64_t last[4];

API int cudnnCreate(void **out) { *out = calloc(1, sizeof(handle_t)); return 0; }
API int cudnnDestroy(void *handle) { free(handle); return 0; }
API int cudnnSetStream(handle_t *handle, void *stream) { handle->stream = stream; return 0; }
API int cudnnGetStream(handle_t *handle, void **stream) { *stream = handle->stream; return 0; }

API int cudnnBackendCreateDescriptor(int type, descriptor_t **out) {
  *out = calloc(1, sizeof **out);
  (*out)->type = type;
  return 0;
}
API int cudnnBackendDestroyDescriptor(void *descriptor) { free(descriptor); return 0; }
API int cudnnBackendSetAttribute(descriptor_t *descriptor, int name, int type, int64_t count,
                                 const int64_t *values) {
  (void)type;
  if (name == DIMENSIONS && count == 4 && values[3] > 1) memcpy(last, values, sizeof last);
  (void)descriptor;
  return 0;
}
API int cudnnBackendFinalize(descriptor_t *descriptor) {
  if (descriptor->type == PLAN) memcpy(descriptor->sizes, last, sizeof last);
  return 0;
}
API int cudnnBackendGetAttribute(descriptor_t *descriptor, int name, int type, int64_t room,
                                 int64_t *count, void *values) {
  (void)descriptor;
  size_t size = type == INT64 ? 8 : type == INT32 ? 4 : 0; /* of memory that it needs: none */
  if (count) *count = size || name == HEURISTIC_RESULTS || name == ENGINE;
  if (size && room > 0 && values) memset(values, 0, size);
  return 0;
}
API int cudnnBackendExecute(handle_t *handle, descriptor_t *plan, void *tensors) {
  (void)tensors;
  const board_t *board = stream_of(handle->stream)->board;
  const int64_t *size = plan->sizes; /* batch, heads, tokens, width */
  double numbers = (double)size[0] * size[1] * size[2] * size[3];
  work_t work = {
    .name = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1"
            "_kernel0_0",
    .kind = KERNEL,
    .length = computing(4 * numbers * size[2], board->fp16_tflops, moving(board, 8 * numbers)),
  };
  return submit(stream_of(handle->stream), work) ? CUDNN_EXECUTION_FAILED : 0;
}
