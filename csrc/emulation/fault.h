// How a fault is reported: with its place in the kernel's source, and with the running thread and block.
#pragma once

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "emulation/engine.h"

namespace cuemu {

inline bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

[[gnu::format(printf, 1, 2)]] inline std::string text(const char* format, ...) {
  std::array<char, 512> buffer;
  va_list values;
  va_start(values, format);
  std::vsnprintf(buffer.data(), buffer.size(), format, values);
  va_end(values);
  return buffer.data();
}

inline std::string text(const dim3& v) { return text("(%u,%u,%u)", v.x, v.y, v.z); }
inline std::string text(const uint3& v) { return text("(%u,%u,%u)", v.x, v.y, v.z); }
inline std::string text(const Where& where) { return text("%s:%u", where.file_name(), where.line()); }

[[noreturn]] inline void fail(const Where& where, const std::string& message) {
  std::fprintf(stderr, "%s: cuemu: %s\n", text(where).c_str(), message.c_str());
  std::abort();
}

// The same for a fault of the running thread.
[[noreturn]] inline void fail_here(const Where& where, const std::string& message) {
  const std::string thread = text(threadIdx), block = text(blockIdx);
  fail(where, text("thread %s of block %s: %s", thread.c_str(), block.c_str(), message.c_str()));
}

}  // namespace cuemu
