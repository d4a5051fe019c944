// A setting of libtorch that tch does not wrap: whether convolutions (cuDNN) and matrix products (cuBLAS) of 32-bit
// floats may be computed in TF32 on a GPU. It is one for the whole process, so matrix products never are: those of a
// network are few, and those of resampling, losses and neighbours are to be exact.

#include <ATen/Context.h>

#include <cstddef>

#include "guarded.h"

extern "C" bool pipeline_allow_tf32(bool allowed, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    at::globalContext().setAllowTF32CuBLAS(false);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

extern "C" bool pipeline_tf32_is_allowed(bool *products, bool *convolutions, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    *products = at::globalContext().allowTF32CuBLAS();
    *convolutions = at::globalContext().allowTF32CuDNN();
  });
}
