// RepOps on a GPU: the same operators, the same bits. A shared library with a C interface, without Python; optional
// (CMake option VERDE_CUDA).
#pragma once
#include "kernels/call.h"

extern "C" {

// Runs one operator on `call`, whose tensors are in device memory (`host` = 0) or in host memory (`host` = 1: copied there
// and back). Returns 0, or an error code whose text ro_cuda_error() gives. Synchronous if `host`, else asynchronous on the default stream.
int ro_cuda_run(const char* op, const ro::Call* call, int host);

// Text of the calling thread's last error.
const char* ro_cuda_error();

// Operators in this build, '\n'-separated.
const char* ro_cuda_operators();

// Device memory, for callers that keep tensors there.
void* ro_cuda_alloc(int64_t bytes);
void ro_cuda_free(void* p);
int ro_cuda_upload(void* device, const void* host, int64_t bytes);
int ro_cuda_download(void* host, const void* device, int64_t bytes);
int ro_cuda_synchronize();

}
