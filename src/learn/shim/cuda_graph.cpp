// A stream of a GPU, and what a thread gives to it as a graph that can be started again and again: at::cuda::CUDAGraph. It needs
// neither CUDA's headers nor its libraries. What libtorch's CUDA part exports is looked up by name once that is loaded; the names
// carry the types of the parameters, so that a libtorch with other ones does not have such a graph. Streams and memory go
// through what every libtorch has.

#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "guarded.h"

namespace {

// The pool of memory of a graph: a new one.
using Pool = std::pair<unsigned long long, unsigned long long>;
constexpr Pool NEW_POOL{0, 0};
// cudaStreamCaptureModeThreadLocal: other threads may do what they like, as the one that makes batches does.
constexpr int THREAD_LOCAL = 1;
// More than sizeof(at::cuda::CUDAGraph) and its alignment, 104 and 8 bytes in 2.11.0.
constexpr std::size_t ROOM = 1024;
constexpr std::size_t ALIGNMENT = 64;

struct Functions {
  void (*construct)(void *, bool);
  void (*destroy)(void *);
  void (*begin)(void *, Pool, int);
  void (*end)(void *);
  void (*replay)(void *);
};

template <typename Function>
void find(Function &function, const char *name) {
  void *found = dlsym(RTLD_DEFAULT, name);
  if (found == nullptr) throw std::runtime_error(std::string("this libtorch does not have ") + name);
  static_assert(sizeof function == sizeof found);
  std::memcpy(&function, &found, sizeof found);
}

const Functions &functions() {
  static const Functions found = [] {
    Functions functions{};
    find(functions.construct, "_ZN2at4cuda9CUDAGraphC1Eb");
    find(functions.destroy, "_ZN2at4cuda9CUDAGraphD1Ev");
    find(functions.begin, "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    find(functions.end, "_ZN2at4cuda9CUDAGraph11capture_endEv");
    find(functions.replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    return functions;
  }();
  return found;
}

struct Graph {
  alignas(ALIGNMENT) unsigned char place[ROOM]{};
  Graph() { functions().construct(place, false); }
  ~Graph() { functions().destroy(place); }
  Graph(const Graph &) = delete;
  Graph &operator=(const Graph &) = delete;
};

c10::Device gpu(std::int8_t number) { return c10::Device(c10::DeviceType::CUDA, number); }

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA); }

c10::Stream stream(std::int8_t number, std::int64_t id) {
  return c10::Stream(c10::Stream::UNSAFE, gpu(number), id);
}

}  // namespace

// A stream of libtorch's pool: its id.
extern "C" bool pipeline_stream_new(std::int8_t number, std::int64_t *id, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] { *id = cuda().getStreamFromGlobalPool(gpu(number)).id(); });
}

// Makes it the one that this thread gives its work to; `before` is the one until then.
extern "C" bool pipeline_stream_use(std::int8_t number, std::int64_t id, std::int64_t *before, char *message,
                                    std::size_t size) noexcept {
  return guarded(message, size, [&] { *before = cuda().exchangeStream(stream(number, id)).id(); });
}

// What `later` is given from now on waits, on the GPU, for what `earlier` was given.
extern "C" bool pipeline_stream_wait(std::int8_t number, std::int64_t later, std::int64_t earlier, char *message,
                                     std::size_t size) noexcept {
  return guarded(message, size, [&] {
    const auto streams = cuda();
    void *event = nullptr;
    streams.record(&event, stream(number, earlier), number, c10::EventFlag::PYTORCH_DEFAULT);
    streams.block(event, stream(number, later));
    streams.destroyEvent(event, number);
  });
}

// Returns what libtorch keeps of a GPU's memory for later. Then `free` are the bytes that nobody has, and `needed` how many more
// than now libtorch has had at once.
extern "C" bool pipeline_gpu_room(std::int8_t number, std::uint64_t *free, std::uint64_t *needed, char *message,
                                  std::size_t size) noexcept {
  return guarded(message, size, [&] {
    constexpr auto all = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    auto *memory = c10::getDeviceAllocator(c10::DeviceType::CUDA);
    memory->emptyCache();
    const auto held = memory->getDeviceStats(number).reserved_bytes[all];
    *needed = static_cast<std::uint64_t>(std::max<std::int64_t>(held.peak - held.current, 0));
    *free = memory->getMemoryInfo(number).first;
  });
}

extern "C" bool pipeline_graph_new(void **graph, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] { *graph = new Graph; });
}

// From here on what this thread gives to its stream is not done, but becomes the graph.
extern "C" bool pipeline_graph_begin(void *graph, std::int8_t number, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    const c10::DeviceGuard device(gpu(number));
    functions().begin(static_cast<Graph *>(graph)->place, NEW_POOL, THREAD_LOCAL);
  });
}

extern "C" bool pipeline_graph_end(void *graph, std::int8_t number, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    const c10::DeviceGuard device(gpu(number));
    functions().end(static_cast<Graph *>(graph)->place);
  });
}

// Gives the graph to the stream of this thread.
extern "C" bool pipeline_graph_replay(void *graph, std::int8_t number, char *message, std::size_t size) noexcept {
  return guarded(message, size, [&] {
    const c10::DeviceGuard device(gpu(number));
    functions().replay(static_cast<Graph *>(graph)->place);
  });
}

extern "C" void pipeline_graph_free(void *graph) noexcept { delete static_cast<Graph *>(graph); }
