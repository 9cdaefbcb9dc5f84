// The memory's best rate for three access patterns, against which the kernels are measured: read K rows, copy, and read K
// rows to write one. Plain pointers, called through ctypes; threads are started per call, as their cost counts for both.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "cpu/vector.h"

namespace {

using mtl::kLanes;
using mtl::load;
using mtl::store;
using mtl::Vector;

constexpr int kStrip = 8;
constexpr int64_t kStep = kStrip * kLanes<float>;

MTL_CLONES float read_row(const float* row, int64_t size) {
  Vector<float> sum[kStrip] = {};
  for (int64_t i = 0; i + kStep <= size; i += kStep) {
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) sum[s] += load(row + i + s * kLanes<float>);
  }
  for (int s = 1; s < kStrip; ++s) sum[0] += sum[s];
  float total = 0;
  for (int lane = 0; lane < kLanes<float>; ++lane) total += sum[0][lane];
  return total;
}

MTL_CLONES void blend_rows(const float* const* rows, int64_t num_rows, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i + kStep <= end; i += kStep) {
    Vector<float> sum[kStrip] = {};
    for (int64_t k = 0; k < num_rows; ++k) {
#pragma GCC unroll 8
      for (int s = 0; s < kStrip; ++s) sum[s] += load(rows[k] + i + s * kLanes<float>);
    }
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) store(out + i + s * kLanes<float>, sum[s]);
  }
}

template <class Work>
void split(int64_t size, int threads, const Work& work) {
  std::vector<std::thread> pool;
  const int64_t share = (size / threads + kStep - 1) / kStep * kStep;
  for (int t = 1; t < threads; ++t) {
    pool.emplace_back([&work, t, share, size] { work(std::min(size, t * share), std::min(size, (t + 1) * share)); });
  }
  work(0, std::min(size, share));
  for (auto& thread : pool) thread.join();
}

}  // namespace

// Every function takes rows [num_rows] of `size` floats.
extern "C" void probe_read(const float* const* rows, int64_t num_rows, int64_t size, int threads, float* sink) {
  split(size, threads, [&](int64_t begin, int64_t end) {
    for (int64_t k = 0; k < num_rows; ++k) {
      const float total = read_row(rows[k] + begin, end - begin);
      if (total == 12345.678f) *sink = total;  // keeps the reads alive
    }
  });
}

extern "C" void probe_copy(const float* const* rows, int64_t num_rows, int64_t size, int threads, float* out) {
  split(size, threads, [&](int64_t begin, int64_t end) {
    for (int64_t k = 0; k < num_rows; ++k) std::memcpy(out + begin, rows[k] + begin, (end - begin) * sizeof(float));
  });
}

extern "C" void probe_blend(const float* const* rows, int64_t num_rows, int64_t size, int threads, float* out) {
  split(size, threads, [&](int64_t begin, int64_t end) { blend_rows(rows, num_rows, begin, end, out); });
}
