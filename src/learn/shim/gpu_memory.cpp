// How much memory of a GPU libtorch has had at once. It needs neither CUDA's headers nor its libraries: libtorch's CUDA part, if it
// is loaded, has registered its allocator with the part that every libtorch has.
// No exception leaves this file: it would tear down the Rust program.

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

// The most bytes that libtorch's allocator has held of this GPU; 0 where it has held none or does not count, and where there is no such GPU.
extern "C" std::uint64_t pipeline_peak_gpu_memory(std::int8_t gpu) noexcept {
  constexpr auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  try {
    const auto held = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(gpu).reserved_bytes[all];
    return static_cast<std::uint64_t>(std::max<std::int64_t>(held.peak, 0));
  } catch (...) {
    return 0;
  }
}
