// What every file of the shim shares. No exception leaves it: it would tear down the Rust program. A call that fails
// returns false and its reason.

#pragma once

#include <cstddef>
#include <cstdio>
#include <exception>

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
