/* Kernels: their names, and how long each lasts by the bytes that it moves.
 *
 * A kernel of torch that works element by element is given the number of elements, and a reduction
 * its sizes; of every other kernel the grid tells how much it does. Argument layouts: torch's
 * CUDALoops.cuh, Reduce.cuh, layer_norm_kernel.cu, PersistentSoftmax.cuh and Sleep.cu. */
#include "fakecuda.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
  UNKNOWN, ELEMENTS, REDUCTION, NORM, SOFTMAX, ATTENTION, FLASH, SPIN, BY_GRID
} rule_t;
typedef struct { const void *function; const char *name; rule_t rule; int bytes; } kernel_t;

static kernel_t *kernels;
static size_t kernel_count, kernel_room, sorted_count;

API void __cudaRegisterFunction(void **handle, const char *function, char *device_function,
                                const char *name, int limit, void *a, void *b, void *c, void *d,
                                int *e) {
  (void)handle, (void)device_function, (void)limit, (void)a, (void)b, (void)c, (void)d, (void)e;
  pthread_mutex_lock(&fakecuda_lock);
  if (kernel_count == kernel_room) {
    kernel_room = kernel_room ? 2 * kernel_room : 1 << 16;
    kernels = realloc(kernels, kernel_room * sizeof *kernels);
  }
  kernels[kernel_count++] = (kernel_t){function, name, UNKNOWN, 0};
  pthread_mutex_unlock(&fakecuda_lock);
}
API void **__cudaRegisterFatBinary(void *image) { static void *none; (void)image; return &none; }
API void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
API void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
API int __cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return SUCCESS;
}

static int by_function(const void *left, const void *right) {
  const kernel_t *a = left, *b = right;
  return (a->function > b->function) - (a->function < b->function);
}

static int has(const char *name, const char *part) { return strstr(name, part) != NULL; }

/* Bytes of one element in all its operands. */
static int bytes_of_element(const char *name) {
  int size = has(name, "Half") || has(name, "BFloat16") || has(name, "half_t") ||
                     has(name, "cutlass10bfloat16_t") || has(name, "cutlassF_bf16") ? 2
             : has(name, "EEUllE") || has(name, "FunctorIl") ? 8 : 4;
  const char *operands = strstr(name, "St5arrayIPcLm"); /* std::array<char *, N> */
  int count = operands ? atoi(operands + strlen("St5arrayIPcLm")) : 2;
  if (has(name, "LoadWithCast") || has(name, "float16_copy") || has(name, "float16tofloat"))
    return 4 + 2;
  return size * count;
}

static rule_t rule_of(const char *name) {
  if (has(name, "spin_kernel")) return SPIN;
  if (has(name, "elementwise_kernel")) return ELEMENTS;
  if (has(name, "13reduce_kernel")) return REDUCTION;
  if (has(name, "vectorized_layer_norm_kernel")) return NORM;
  if (has(name, "softmax_warp_forward")) return SOFTMAX;
  if (has(name, "fmha_cutlass")) return ATTENTION;
  if (has(name, "flash_fwd")) return FLASH;
  return BY_GRID;
}

/* What is known of a kernel; looked up in its name once, since names are long. */
static kernel_t kernel_of(const void *function) {
  kernel_t key = {.function = function}, *found;
  pthread_mutex_lock(&fakecuda_lock);
  if (sorted_count != kernel_count) {
    qsort(kernels, kernel_count, sizeof *kernels, by_function);
    sorted_count = kernel_count;
  }
  if ((found = bsearch(&key, kernels, kernel_count, sizeof key, by_function))) {
    if (found->rule == UNKNOWN) {
      found->bytes = bytes_of_element(found->name);
      found->rule = rule_of(found->name);
    }
    key = *found;
  }
  pthread_mutex_unlock(&fakecuda_lock);
  return key;
}

/* A ReduceOp holds its function and its start value, then the bytes of an element, inputs and
 * outputs of its ReduceConfig. */
static double reduced_bytes(const int *operation) {
  for (int i = 0; i < 8; i++) {
    int size = operation[i], inputs = operation[i + 1], outputs = operation[i + 2];
    if ((size == 2 || size == 4 || size == 8) && inputs > 0 && outputs > 0)
      return (double)size * outputs * (1.0 + inputs);
  }
  return 0;
}

static ns_t length(const board_t *board, const kernel_t *kernel, const unsigned grid[3],
                   const unsigned block[3], void **arguments) {
  double blocks = (double)grid[0] * grid[1] * grid[2];
  double threads = blocks * block[0] * block[1] * block[2];
  int bytes = kernel->bytes;
  switch (arguments ? kernel->rule : BY_GRID) {
    case SPIN: return *(int64_t *)arguments[0] * 1000 / board->clock_mhz;
    case ELEMENTS: return moving(board, (double)*(int *)arguments[0] * bytes);
    case REDUCTION: return moving(board, reduced_bytes(arguments[0]));
    case NORM: return moving(board, (double)*(int *)arguments[0] * grid[0] * bytes);
    case SOFTMAX:
      return moving(board, (double)*(int *)arguments[2] * *(int *)arguments[4] * bytes);
    case ATTENTION:
    case FLASH: { /* blocks of queries, each by all keys, at 64 numbers a head */
      double queries = kernel->rule == FLASH ? 128 : 64;
      double flops = blocks * queries * (grid[0] * queries) * 64 * 4;
      double tflops = bytes == 4 ? board->fp16_tflops : board->fp32_tflops;
      return computing(flops, tflops, moving(board, blocks * queries * 64 * 4 * bytes / 2));
    }
    default: return moving(board, threads * 4 * bytes);
  }
}

static int launch(void *stream, const kernel_t *kernel, const unsigned grid[3],
                  const unsigned block[3], void **arguments) {
  if (strikes("no_image")) return fail(NO_IMAGE);
  stream_t *on = stream_of(stream);
  ns_t ns = length(on->board, kernel, grid, block, arguments);
  return submit(on, (work_t){.name = kernel->name, .length = ns, .kind = KERNEL});
}

int kernel_launch(void *stream, const char *name, const unsigned grid[3], const unsigned block[3]) {
  kernel_t kernel = {.name = name, .rule = BY_GRID, .bytes = bytes_of_element(name)};
  return launch(stream, &kernel, grid, block, NULL);
}

typedef struct { unsigned x, y, z; } dim3_t;

static int runtime_launch(const void *function, dim3_t grid, dim3_t block, void **arguments,
                          void *stream) {
  kernel_t kernel = kernel_of(function);
  if (!kernel.name) return fail(INVALID_VALUE);
  return launch(stream, &kernel, (unsigned[]){grid.x, grid.y, grid.z},
                (unsigned[]){block.x, block.y, block.z}, arguments);
}

API int cudaLaunchKernel(const void *function, dim3_t grid, dim3_t block, void **arguments,
                         size_t shared, void *stream) {
  (void)shared;
  return runtime_launch(function, grid, block, arguments, stream);
}
API int __cudaLaunchKernel(void *function, dim3_t grid, dim3_t block, void **arguments,
                           size_t shared, void *stream) {
  (void)shared;
  return runtime_launch(function, grid, block, arguments, stream);
}
typedef struct { dim3_t grid, block; size_t shared; void *stream; } launch_config_t;
API int cudaLaunchKernelExC(const launch_config_t *c, const void *function, void **arguments) {
  return runtime_launch(function, c->grid, c->block, arguments, c->stream);
}

/* What stands between <<< and >>>, kept for the launch that follows it. */
static _Thread_local launch_config_t pushed[16];
static _Thread_local unsigned pushed_count;
API unsigned __cudaPushCallConfiguration(dim3_t grid, dim3_t block, size_t shared, void *stream) {
  pushed[pushed_count++ & 15] = (launch_config_t){grid, block, shared, stream};
  return SUCCESS;
}
API int __cudaPopCallConfiguration(dim3_t *grid, dim3_t *block, size_t *shared, void **stream) {
  launch_config_t *c = &pushed[--pushed_count & 15];
  *grid = c->grid, *block = c->block, *shared = c->shared, *stream = c->stream;
  return SUCCESS;
}

