// Two calls of libtorch that tch does not wrap: entering and leaving a level of forward-mode differentiation.
// No exception leaves this file: it would tear down the Rust program. A call that fails returns false and its reason.

#include <torch/csrc/autograd/autograd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>

namespace {

template <typename Call>
bool guarded(char *message, std::size_t size, Call call) noexcept {
  try {
    call();
    return true;
  } catch (const std::exception &error) {
    std::snprintf(message, size, "%s", error.what());
  } catch (...) {
    std::snprintf(message, size, "an exception without a message");
  }
  return false;
}

}  // namespace

extern "C" bool pipeline_enter_dual_level(std::uint64_t *level, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] { *level = torch::autograd::forward_ad::enter_dual_level(); });
}

extern "C" bool pipeline_exit_dual_level(std::uint64_t level, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] { torch::autograd::forward_ad::exit_dual_level(level); });
}
