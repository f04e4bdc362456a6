/* cuBLAS and cuBLASLt: how long a product of this shape and type lasts, and what its kernel is
 * called on this architecture. Names: traces that PyTorch's and NVIDIA's issues show. */
#include "fakecuda.h"
#include <stdlib.h>
#include <string.h>

enum { F32 = 0, F16 = 2, BF16 = 14 };               /* cudaDataType_t */
enum { FAST_TF32 = 77 };                            /* cublasComputeType_t */
enum { TF32_MATH = 3 };                             /* cublasMath_t */
enum { TRANSPOSED_A = 3 };                          /* cublasLtMatmulDescAttributes_t */
enum { BATCH_COUNT = 5 };                           /* cublasLtMatrixLayoutAttribute_t */

typedef struct { void *stream; int math; } handle_t;
typedef struct { int compute, transposed_a; } product_t;
typedef struct { int type, batch; uint64_t rows, columns; } layout_t;

static const char *kernel_name(const board_t *board, int type, int tf32) {
  int arch = 10 * board->major + board->minor;
  if (type == F16) {
    if (arch < 70) return "maxwell_fp16_sgemm_fp16_128x64_nn";
    if (arch < 75) return "volta_fp16_s884gemm_fp16_128x128_ldg8_f2f_tn";
    if (arch < 80) return "turing_fp16_s1688gemm_fp16_128x64_ldg8_f2f_tn";
    if (arch < 90) return "ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x3_tn";
    return "nvjet_sm90_hsh_128x128_64x4_1x1_h_bz_coopA_bias_TNT";
  }
  if (type == BF16) {
    if (arch < 80) return "gemmSN_NN_kernel<float, 256, 4, 2, 8, 4, 4, false, __nv_bfloat16>";
    if (arch < 90) return "ampere_bf16_s16816gemm_bf16_128x64_ldg8_f2f_stages_64x4_tn";
    return "nvjet_sm90_tst_128x128_64x4_1x1_h_bz_coopA_bias_TNT";
  }
  if (tf32 && arch >= 80)
    return arch < 90 ? "ampere_sgemm_tf32_s1688gemm_128x128_16x3_nn"
                     : "nvjet_sm90_sss_tf32_128x64_32x4_1x2_h_bz_coopA_bias_NNT";
  if (arch < 70) return "maxwell_sgemm_128x64_nn";
  if (arch < 80) return "volta_sgemm_128x64_nn";
  return "sm80_xmma_gemm_f32f32_f32f32_f32_nn_n_tilesize128x128x8_stage3_warpsize2x2x1_ffma"
         "_aligna4_alignc4_execute_kernel__5x_cublas";
}

static int multiply(void *stream, int type, int tf32, double m, double n, double k, double batch) {
  if (strikes("no_image")) return 8; /* CUBLAS_STATUS_ARCH_MISMATCH */
  const board_t *board = stream_of(stream)->board;
  double tflops = type == F16 ? board->fp16_tflops
                  : type == BF16 ? board->bf16_tflops
                  : tf32 && board->tf32_tflops > 0 ? board->tf32_tflops : board->fp32_tflops;
  double bytes = batch * (m * k + k * n + m * n) * (type == F32 ? 4 : 2);
  work_t work = {
    .name = kernel_name(board, type, tf32), .kind = KERNEL,
    .length = computing(2 * m * n * k * batch, tflops, moving(board, bytes)),
  };
  return submit(stream_of(stream), work) ? 13 : 0; /* CUBLAS_STATUS_EXECUTION_FAILED */
}

static int is_tf32(const handle_t *handle, int compute) {
  return compute == FAST_TF32 || (handle->math & 15) == TF32_MATH; /* above them: flags */
}

API int cublasCreate_v2(void **out) {
  if (any_capture()) return forbidden("cublasCreate"), 1; /* CUBLAS_STATUS_NOT_INITIALIZED */
  *out = calloc(1, sizeof(handle_t));
  return 0;
}
API int cublasDestroy_v2(void *handle) { free(handle); return 0; }
API int cublasSetStream_v2(handle_t *handle, void *stream) { handle->stream = stream; return 0; }
API int cublasSetMathMode(handle_t *handle, int mode) { handle->math = mode; return 0; }
API int cublasGetMathMode(handle_t *handle, int *mode) { *mode = handle->math; return 0; }
API int cublasGetPointerMode_v2(void *handle, int *mode) { (void)handle; *mode = 0; return 0; }

API int cublasGemmEx(handle_t *handle, int ta, int tb, int m, int n, int k, const void *alpha,
                     const void *a, int type, int lda, const void *b, int b_type, int ldb,
                     const void *beta, void *c, int c_type, int ldc, int compute, int algorithm) {
  (void)ta, (void)tb, (void)alpha, (void)a, (void)lda, (void)b, (void)b_type, (void)ldb;
  (void)beta, (void)c, (void)c_type, (void)ldc, (void)algorithm;
  return multiply(handle->stream, type, is_tf32(handle, compute), m, n, k, 1);
}
API int cublasSgemm_v2(handle_t *handle, int ta, int tb, int m, int n, int k) {
  (void)ta, (void)tb;
  return multiply(handle->stream, F32, is_tf32(handle, 0), m, n, k, 1);
}
API int cublasSgemmEx(handle_t *handle, int ta, int tb, int m, int n, int k, const void *alpha,
                      const void *a, int type) {
  (void)ta, (void)tb, (void)alpha, (void)a;
  return multiply(handle->stream, type, is_tf32(handle, 0), m, n, k, 1);
}
API int cublasGemmStridedBatchedEx(handle_t *handle, int ta, int tb, int m, int n, int k,
                                   const void *alpha, const void *a, int type, int lda,
                                   long long stride_a, const void *b, int b_type, int ldb,
                                   long long stride_b, const void *beta, void *c, int c_type,
                                   int ldc, long long stride_c, int batch, int compute,
                                   int algorithm) {
  (void)ta, (void)tb, (void)alpha, (void)a, (void)lda, (void)stride_a, (void)b, (void)b_type;
  (void)ldb, (void)stride_b, (void)beta, (void)c, (void)c_type, (void)ldc, (void)stride_c;
  (void)algorithm;
  return multiply(handle->stream, type, is_tf32(handle, compute), m, n, k, batch);
}
API int cublasSgemmStridedBatched(handle_t *handle, int ta, int tb, int m, int n, int k,
                                  const void *alpha, const void *a, int lda, long long stride_a,
                                  const void *b, int ldb, long long stride_b, const void *beta,
                                  void *c, int ldc, long long stride_c, int batch) {
  (void)ta, (void)tb, (void)alpha, (void)a, (void)lda, (void)stride_a, (void)b, (void)ldb;
  (void)stride_b, (void)beta, (void)c, (void)ldc, (void)stride_c;
  return multiply(handle->stream, F32, is_tf32(handle, 0), m, n, k, batch);
}

API size_t cublasLtGetVersion(void) { return 130100; }
API int cublasLtMatmulDescCreate(void **out, int compute, int scale) {
  (void)scale;
  product_t *product = calloc(1, sizeof *product);
  product->compute = compute;
  *out = product;
  return 0;
}
API int cublasLtMatmulDescSetAttribute(product_t *product, int attribute, const void *value,
                                       size_t size) {
  (void)size;
  if (attribute == TRANSPOSED_A) product->transposed_a = *(const int *)value != 0;
  return 0;
}
API int cublasLtMatmulDescDestroy(void *product) { free(product); return 0; }
API int cublasLtMatrixLayoutCreate(void **out, int type, uint64_t rows, uint64_t columns,
                                   int64_t leading) {
  (void)leading;
  layout_t *layout = calloc(1, sizeof *layout);
  *layout = (layout_t){type, 1, rows, columns};
  *out = layout;
  return 0;
}
API int cublasLtMatrixLayoutSetAttribute(layout_t *layout, int attribute, const void *value,
                                         size_t size) {
  (void)size;
  if (attribute == BATCH_COUNT) layout->batch = *(const int *)value;
  return 0;
}
API int cublasLtMatrixLayoutDestroy(void *layout) { free(layout); return 0; }
API int cublasLtMatmulPreferenceCreate(void **out) { *out = calloc(1, 64); return 0; }
API int cublasLtMatmulPreferenceDestroy(void *preference) { free(preference); return 0; }
API int cublasLtMatmulAlgoGetHeuristic(void *lt, void *product, void *a, void *b, void *c, void *d,
                                       void *preference, int wanted, void *results, int *found) {
  (void)lt, (void)product, (void)a, (void)b, (void)c, (void)d, (void)preference, (void)wanted;
  memset(results, 0, 96); /* one cublasLtMatmulHeuristicResult_t: no workspace, success */
  *found = 1;
  return 0;
}
API int cublasLtMatmul(void *lt, const product_t *product, const void *alpha, const void *a,
                       const layout_t *a_layout, const void *b, const layout_t *b_layout,
                       const void *beta, const void *c, const layout_t *c_layout, void *d,
                       const layout_t *d_layout, const void *algorithm, void *workspace,
                       size_t workspace_size, void *stream) {
  (void)lt, (void)alpha, (void)a, (void)b, (void)b_layout, (void)beta, (void)c, (void)c_layout;
  (void)d, (void)algorithm, (void)workspace, (void)workspace_size;
  double inner = product->transposed_a ? a_layout->rows : a_layout->columns;
  return multiply(stream, a_layout->type, product->compute == FAST_TF32, d_layout->rows,
                  d_layout->columns, inner, d_layout->batch);
}
