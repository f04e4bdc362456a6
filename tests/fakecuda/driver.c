/* What torch and Triton ask of libcuda itself. Its soname leads to this same library. */
#include "fakecuda.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

extern int cudaDeviceGetAttribute(int *value, int attribute, int device);

static int context; /* only its address is used */

API int cuInit(unsigned flags) { (void)flags; return board_count() ? SUCCESS : NO_DEVICE; }
API int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
API int cuDeviceGetCount(int *count) { *count = board_count(); return SUCCESS; }
API int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return board_at(ordinal) ? SUCCESS : INVALID_DEVICE;
}
API int cuCtxGetCurrent(void **out) { *out = &context; return SUCCESS; }
extern int cudaGetDevice(int *device);
API int cuCtxGetDevice(int *device) { return cudaGetDevice(device); }
API int cuCtxGetDevice_v2(int *device, void *of) { (void)of; return cudaGetDevice(device); }
API int cuDevicePrimaryCtxRetain(void **out, int device) {
  (void)device;
  *out = &context;
  return SUCCESS;
}
API int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  (void)device;
  *flags = 0, *active = 1;
  return SUCCESS;
}
/* CUdevice_attribute and cudaDeviceAttr count alike. */
API int cuDeviceGetAttribute(int *value, int attribute, int device) {
  return cudaDeviceGetAttribute(value, attribute, device);
}
extern const char *cudaGetErrorString(int code);
API int cuGetErrorString(int code, const char **text) {
  *text = cudaGetErrorString(code);
  return SUCCESS;
}
API int cuGetErrorName(int code, const char **text) { return cuGetErrorString(code, text); }

/* A module and its functions are known by name only. */
API int cuModuleLoadData(void **module, const void *image) {
  (void)image;
  *module = &context;
  return SUCCESS;
}
API int cuModuleLoadDataEx(void **module, const void *image, unsigned count, void *options,
                           void *values) {
  (void)count, (void)options, (void)values;
  return cuModuleLoadData(module, image);
}
API int cuModuleLoad(void **module, const char *file) { return cuModuleLoadData(module, file); }
API int cuModuleGetFunction(void **function, void *module, const char *name) {
  (void)module;
  *function = strdup(name);
  return SUCCESS;
}
API int cuLibraryLoadData(void **library, const void *image, void *options, void *values,
                          unsigned count, void *more, void *most, unsigned last) {
  (void)options, (void)values, (void)count, (void)more, (void)most, (void)last;
  return cuModuleLoadData(library, image);
}
API int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
  return cuModuleGetFunction(kernel, library, name);
}
API int cuFuncGetAttribute(int *value, int attribute, void *function) {
  (void)function;
  *value = attribute == 0 ? 1024 : attribute == 4 ? 32 : 0; /* most threads; registers */
  return SUCCESS;
}
API int cuPointerGetAttribute(void *out, int attribute, unsigned long long pointer) {
  (void)attribute;
  *(unsigned long long *)out = pointer;
  return SUCCESS;
}
API int cuOccupancyMaxActiveClusters(int *count, void *function, void *config) {
  (void)function, (void)config;
  *count = 1;
  return SUCCESS;
}
API int cuStreamIsCapturing(void *stream, int *status) {
  *status = stream_of(stream)->capturing;
  return SUCCESS;
}
API int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                       unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments,
                       void **extra) {
  (void)shared, (void)arguments, (void)extra;
  return kernel_launch(stream, function, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz});
}
typedef struct { unsigned grid[3], block[3], shared; void *stream; } driver_config_t;
API int cuLaunchKernelEx(const driver_config_t *config, void *function, void **arguments,
                         void **extra) {
  (void)arguments, (void)extra;
  return kernel_launch(config->stream, function, config->grid, config->block);
}

API int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *found) {
  (void)version, (void)flags;
  void *self = dlopen("libcuda.so.1", RTLD_LAZY);
  char newer[128];
  *out = NULL;
  for (int k = 4; k >= 2 && !*out; k--) {
    snprintf(newer, sizeof newer, "%s_v%d", name, k);
    *out = dlsym(self, newer);
  }
  if (!*out) *out = dlsym(self, name);
  if (found) *found = *out ? 0 : 1;
  return *out ? SUCCESS : NOT_FOUND;
}
API int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, out, version, flags, NULL);
}
/* The runtime's way to the same functions. */
API int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                         uint64_t flags, int *status) {
  int missing, code = cuGetProcAddress_v2(name, function, version, flags, &missing);
  if (status) *status = missing; /* cudaDriverEntryPointSymbolNotFound is 1, too */
  return fail(code);
}
API int cudaGetDriverEntryPoint(const char *name, void **function, uint64_t flags, int *status) {
  return cudaGetDriverEntryPointByVersion(name, function, 13000, flags, status);
}
