// A setting of libtorch that tch does not wrap: whether matrix products (cuBLAS) and convolutions (cuDNN) of 32-bit
// floats may be computed in TF32 on a GPU. It is one for the whole process.

#include <ATen/Context.h>

#include <cstddef>

#include "guarded.h"

extern "C" bool pipeline_allow_tf32(bool allowed, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

extern "C" bool pipeline_tf32_is_allowed(bool *products, bool *convolutions, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    *products = at::globalContext().allowTF32CuBLAS();
    *convolutions = at::globalContext().allowTF32CuDNN();
  });
}
