// What the sanitizer drivers of the operators share. Each sanitize_<op>.cpp defines run_cases(): it calls the launcher
// of csrc/cuda/<op>.cu on small odd-sized data between guard zones and compares with a plain loop. One executable per
// operator and sanitizer; python_tests/test_sanitizers.py builds and runs them.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "common/dtypes.h"
#include "cuda/runtime.h"
#include "cuda/tensor_lists.h"

void run_cases();

namespace sanitize {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;  // slow for blocks of many threads: fewer cases
#else
constexpr bool kThreadSanitizer = false;
#endif

[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vfprintf(stderr, format, values);
  va_end(values);
  std::exit(3);
}

inline void expect_success(cudaError_t error) {
  if (error != cudaSuccess) fail("launch failed: %s\n", cudaGetErrorString(error));
}

inline void expect_close(const char* what, int64_t index, double found, double expected, double bound) {
  if (std::abs(found - expected) <= bound) return;
  fail("%s[%ld] is %.17g, expected %.17g within %g\n", what, static_cast<long>(index), found, expected, bound);
}

// Elements between two guard zones, which AddressSanitizer watches and the destructor checks. The first lies `shift`
// elements beyond an address that is aligned to 16 bytes. Filled with NaN bytes.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t count, int64_t shift = 0) : count_(count), memory_(total()) {
    memory_.assign(total(), kGuard);
    begin_ = memory_.data() + kZone;
    begin_ += (16 - reinterpret_cast<uintptr_t>(begin_) % 16) % 16 + shift * sizeof(T);
    std::memset(begin_, 0xff, bytes());
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(memory_.data(), begin_ - memory_.data());
    __asan_poison_memory_region(begin_ + bytes(), memory_.data() + total() - begin_ - bytes());
#endif
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  ~Guarded() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(memory_.data(), total());
#endif
    for (const unsigned char* byte = memory_.data(); byte != memory_.data() + total(); ++byte) {
      const bool inside = byte >= begin_ && byte < begin_ + bytes();
      if (!inside && *byte != kGuard) fail("guard zone overwritten, %td bytes from the first element\n", byte - begin_);
    }
  }

  T* data() { return reinterpret_cast<T*>(begin_); }
  T& operator[](int64_t i) { return data()[i]; }
  int64_t size() const { return count_; }

 private:
  static constexpr unsigned char kGuard = 0xa5;
  static constexpr size_t kZone = 64;

  size_t bytes() const { return count_ * sizeof(T); }
  size_t total() const { return bytes() + 3 * kZone; }

  int64_t count_;
  std::vector<unsigned char> memory_;
  unsigned char* begin_;
};

// Pseudo-random numbers in [-1, 1], the same in every run.
inline double random_value() {
  static uint64_t state = 1;
  state = state * 6364136223846793005 + 1442695040888963407;
  return static_cast<double>(static_cast<int64_t>(state)) * 0x1p-63;
}

// One parameter of a list: its dtype, size, distance from 16-byte alignment, and the only row that lacks it (-1: none).
struct Parameter {
  mtl::Dtype dtype;
  int64_t numel;
  int64_t shift = 0;
  int absent_row = -1;
};

// Calls visit(T{}) with the storage type of a dtype.
template <class Visit>
auto with_type(mtl::Dtype dtype, Visit visit) {
  switch (dtype) {
    case mtl::Dtype::kFloat64:
      return visit(double{});
    case mtl::Dtype::kBFloat16:
      return visit(mtl::bfloat16{});
    case mtl::Dtype::kFloat16:
      return visit(mtl::float16{});
    default:
      return visit(float{});
  }
}

// R lists of random tensors, as the glue would hand them to a launcher.
class Rows {
 public:
  Rows(int num_rows, const std::vector<Parameter>& params) : params_(params) {
    lists_.num_rows = num_rows;
    lists_.num_params = static_cast<int64_t>(params.size());
    for (const Parameter& param : params) {
      lists_.numel.push_back(param.numel);
      lists_.dtype.push_back(param.dtype);
    }
    for (int row = 0; row < num_rows; ++row) {
      for (const Parameter& param : params) add_tensor(row == param.absent_row ? 0 : param.numel, param);
    }
  }

  const mtl::TensorLists& lists() const { return lists_; }
  bool present(int row, int64_t param) const { return lists_.data[index(row, param)] != nullptr; }

  // Element i of a parameter, 0 where it is absent.
  double at(int row, int64_t param, int64_t i) const {
    const void* data = lists_.data[index(row, param)];
    return data == nullptr ? 0 : with_type(params_[param].dtype, [&](auto zero) {
      return static_cast<double>(mtl::widen(static_cast<const decltype(zero)*>(data)[i]));
    });
  }

  void set(int row, int64_t param, int64_t i, double value) {
    with_type(params_[param].dtype, [&](auto zero) {
      using T = decltype(zero);
      T* data = static_cast<T*>(const_cast<void*>(lists_.data[index(row, param)]));
      data[i] = mtl::narrow<T>(static_cast<decltype(mtl::widen(zero))>(value));
    });
  }

  // Makes `row` share the memory of `other`.
  void alias(int row, int other) {
    for (int64_t param = 0; param < lists_.num_params; ++param) {
      lists_.data[index(row, param)] = lists_.data[index(other, param)];
    }
  }

 private:
  size_t index(int row, int64_t param) const { return row * lists_.num_params + param; }

  void add_tensor(int64_t numel, const Parameter& param) {
    with_type(param.dtype, [&](auto zero) {
      using T = decltype(zero);
      const auto tensor = std::make_shared<Guarded<T>>(numel, param.shift);
      for (int64_t i = 0; i < numel; ++i) {
        (*tensor)[i] = mtl::narrow<T>(static_cast<decltype(mtl::widen(zero))>(random_value()));
      }
      lists_.data.push_back(numel == 0 ? nullptr : tensor->data());
      memory_.push_back(tensor);
    });
  }

  std::vector<Parameter> params_;
  mtl::TensorLists lists_;
  std::vector<std::shared_ptr<void>> memory_;
};

// Every dtype, aligned and not, sizes on both sides of a chunk, an absent tensor, and one absent in every row.
inline std::vector<Parameter> odd_parameters(int64_t chunk) {
  using mtl::Dtype;
  return {{Dtype::kFloat32, 1},
          {Dtype::kFloat32, 2 * chunk + 13},
          {Dtype::kFloat32, chunk + 3, 1},
          {Dtype::kFloat64, chunk + 5},
          {Dtype::kFloat32, 0},
          {Dtype::kBFloat16, chunk + 7, 0, 0},
          {Dtype::kFloat16, 131, 3},
          {Dtype::kBFloat16, 77, 1}};
}

// A Gram matrix [K, K] of random gradients of `columns` elements each.
inline void fill_gram(double* gram, int num_tasks, int columns) {
  std::vector<double> grads(static_cast<size_t>(num_tasks) * columns);
  for (double& value : grads) value = random_value();
  for (int i = 0; i < num_tasks; ++i) {
    for (int j = 0; j < num_tasks; ++j) {
      double sum = 0;
      for (int c = 0; c < columns; ++c) sum += grads[i * columns + c] * grads[j * columns + c];
      gram[i * num_tasks + j] = sum;
    }
  }
}

}  // namespace sanitize
