// Two calls of libtorch that tch does not wrap: entering and leaving a level of forward-mode differentiation.

#include <torch/csrc/autograd/autograd.h>

#include <cstddef>
#include <cstdint>

#include "guarded.h"

extern "C" bool pipeline_enter_dual_level(std::uint64_t *level, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] { *level = torch::autograd::forward_ad::enter_dual_level(); });
}

extern "C" bool pipeline_exit_dual_level(std::uint64_t level, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] { torch::autograd::forward_ad::exit_dual_level(level); });
}
