// The machine's best rates, against which the kernels are measured. Memory: read a list, copy it (through the caches or
// past them), read K rows to write one. In cache: Philox words. Plain pointers, called through ctypes; threads are
// started per call, as their cost counts for both.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "cpu/logarithm.h"
#include "cpu/philox.h"
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
  int64_t i = 0;
  for (; i + kStep <= size; i += kStep) {
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) sum[s] += load(row + i + s * kLanes<float>);
  }
  for (int s = 1; s < kStrip; ++s) sum[0] += sum[s];
  float total = 0;
  for (int lane = 0; lane < kLanes<float>; ++lane) total += sum[0][lane];
  for (; i < size; ++i) total += row[i];
  return total;
}

// Elements begin..end of the rows `row[0]`, `row[stride]`, ... added into `out`, past the caches.
MTL_CLONES void blend_rows(const float* const* row, int64_t num_rows, int64_t stride, int64_t begin, int64_t end,
                           float* out) {
  int64_t i = begin;
  for (; i < end && !mtl::can_stream(out + i); ++i) {
    out[i] = 0;
    for (int64_t k = 0; k < num_rows; ++k) out[i] += row[k * stride][i];
  }
  for (; i + kStep <= end; i += kStep) {
    Vector<float> sum[kStrip] = {};
    for (int64_t k = 0; k < num_rows; ++k) {
#pragma GCC unroll 8
      for (int s = 0; s < kStrip; ++s) sum[s] += load(row[k * stride] + i + s * kLanes<float>);
    }
#pragma GCC unroll 8
    for (int s = 0; s < kStrip; ++s) mtl::stream(out + i + s * kLanes<float>, sum[s]);
  }
  for (; i < end; ++i) {
    out[i] = 0;
    for (int64_t k = 0; k < num_rows; ++k) out[i] += row[k * stride][i];
  }
  mtl::end_stream();
}

MTL_CLONES void add_logarithms(const float* values, int64_t size, float* sums) {
  Vector<float> sum[4] = {};
  for (int64_t i = 0; i < size; i += 4 * kLanes<float>) {
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s) sum[s] += mtl::logarithm(load(values + i + s * kLanes<float>));
  }
  for (int s = 0; s < 4; ++s) store(sums, sum[s] + load(sums));
}

template <class Work>
void split(int64_t size, int64_t step, int threads, const Work& work) {
  std::vector<std::thread> pool;
  const int64_t share = (size / threads + step - 1) / step * step;
  for (int t = 1; t < threads; ++t) {
    pool.emplace_back([&work, t, share, size] { work(std::min(size, t * share), std::min(size, (t + 1) * share)); });
  }
  work(0, std::min(size, share));
  for (auto& thread : pool) thread.join();
}

}  // namespace

// A task-major list of K * P float32 tensors and P output tensors of the same sizes.
struct TensorList {
  const float* const* tensors;
  float* const* out;
  const int64_t* sizes;  // [P]
  int64_t num_rows;      // K
  int64_t num_params;    // P
};

namespace {

// Calls work(param, begin, end) for the parts of the parameters that each thread's share of all elements covers.
template <class Work>
void split_list(const TensorList& list, int threads, const Work& work) {
  int64_t total = 0;
  for (int64_t p = 0; p < list.num_params; ++p) total += list.sizes[p];
  split(total, kStep, threads, [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    for (int64_t p = 0; p < list.num_params; first += list.sizes[p++]) {
      const int64_t from = std::max(begin - first, int64_t{0}), to = std::min(end - first, list.sizes[p]);
      if (from < to) work(p, from, to);
    }
  });
}

}  // namespace

extern "C" void probe_read(const TensorList* list, int threads) {
  split_list(*list, threads, [&](int64_t param, int64_t begin, int64_t end) {
    for (int64_t k = 0; k < list->num_rows; ++k) {
      const float total = read_row(list->tensors[k * list->num_params + param] + begin, end - begin);
      if (total == 12345.678f) *list->out[param] = total;  // keeps the reads alive
    }
  });
}

// All K rows side by side, each run asking for the next one of its row.
extern "C" void probe_read_rows(const TensorList* list, int threads) {
  split_list(*list, threads, [&](int64_t param, int64_t begin, int64_t end) {
    constexpr int64_t kRun = 256;
    float total = 0;
    for (int64_t i = begin; i < end; i += kRun) {
      for (int64_t k = 0; k < list->num_rows; ++k) {
        const float* row = list->tensors[k * list->num_params + param] + i;
        for (int64_t ahead = kRun; ahead < 2 * kRun; ahead += 16) __builtin_prefetch(row + ahead, 0, 2);
        total += read_row(row, std::min(kRun, end - i));
      }
    }
    if (total == 12345.678f) *list->out[param] = total;
  });
}

// The first row alone: several onto one output would find it in a cache.
extern "C" void probe_copy(const TensorList* list, int threads) {
  split_list(*list, threads, [&](int64_t param, int64_t begin, int64_t end) {
    std::memcpy(list->out[param] + begin, list->tensors[param] + begin, (end - begin) * sizeof(float));
  });
}

// The same without asking for what is overwritten: what two lists read and two written can reach.
extern "C" void probe_copy_past(const TensorList* list, int threads) {
  split_list(*list, threads, [&](int64_t param, int64_t begin, int64_t end) {
    blend_rows(list->tensors + param, 1, list->num_params, begin, end, list->out[param]);
  });
}

extern "C" void probe_blend(const TensorList* list, int threads) {
  split_list(*list, threads, [&](int64_t param, int64_t begin, int64_t end) {
    blend_rows(list->tensors + param, list->num_rows, list->num_params, begin, end, list->out[param]);
  });
}

// Draws `count` uniform numbers, 512 at a time into the first-level cache.
extern "C" void probe_philox(int64_t count, int threads) {
  constexpr int64_t kDrawn = 512;
  const auto fill_uniform = mtl::choose_fill_uniform();
  const int64_t seed[2] = {17, 0};
  split(count, kDrawn, threads, [&](int64_t begin, int64_t end) {
    alignas(64) float drawn[kDrawn];
    for (int64_t i = begin; i < end; i += kDrawn) fill_uniform(mtl::PhiloxStream(seed), 0, i / 4, kDrawn / 4, drawn);
    asm volatile("" : : "r"(drawn) : "memory");
  });
}

// Adds `count` logarithms of values in the first-level cache.
extern "C" void probe_log(int64_t count, int threads) {
  constexpr int64_t kCached = 2048;
  split(count, kCached, threads, [&](int64_t begin, int64_t end) {
    alignas(64) float values[kCached], sums[kLanes<float>] = {};
    for (int64_t i = 0; i < kCached; ++i) values[i] = 0.5f + static_cast<float>(i) / kCached;
    for (int64_t i = begin; i < end; i += kCached) add_logarithms(values, kCached, sums);
    asm volatile("" : : "r"(sums) : "memory");
  });
}
