// The columns that one thread of a chunk's block works on: all its loads of one row are in flight together.
#pragma once

#include "cuda/multi_tensor.cuh"

namespace mtl {

constexpr int kColumnThreads = 256;

// Columns of a thread: sixteen, eight of double.
template <class T>
constexpr int kThreadColumns = sizeof(T) == 8 ? 8 : 16;

template <class T>
constexpr int kBlockColumns = kColumnThreads * kThreadColumns<T>;

// In a vectorised chunk a thread has every kColumnThreads-th vector, else every kColumnThreads-th element; what lies
// beyond the chunk reads as 0.
template <class T, bool kVectorised>
__device__ __forceinline__ void load_columns(const T* row, int columns, Wide<T>* values) {
  const int thread = threadIdx.x;
  if constexpr (kVectorised) {
    constexpr int kLoads = kThreadColumns<T> / kVector<T>;
    uint4 loaded[kLoads];
#pragma unroll
    for (int n = 0; n < kLoads; ++n) loaded[n] = reinterpret_cast<const uint4*>(row)[n * kColumnThreads + thread];
#pragma unroll
    for (int n = 0; n < kLoads; ++n) unpack<T>(loaded[n], values + n * kVector<T>);
  } else {
#pragma unroll
    for (int n = 0; n < kThreadColumns<T>; ++n) {
      const int column = n * kColumnThreads + thread;
      values[n] = column < columns ? widen(row[column]) : Wide<T>(0);
    }
  }
}

template <class T, bool kVectorised>
__device__ __forceinline__ void store_columns(T* row, int columns, const Wide<T>* values) {
  const int thread = threadIdx.x;
  if constexpr (kVectorised) {
#pragma unroll
    for (int n = 0; n < kThreadColumns<T> / kVector<T>; ++n) {
      reinterpret_cast<uint4*>(row)[n * kColumnThreads + thread] = pack<T>(values + n * kVector<T>);
    }
  } else {
#pragma unroll
    for (int n = 0; n < kThreadColumns<T>; ++n) {
      const int column = n * kColumnThreads + thread;
      if (column < columns) row[column] = narrow<T>(values[n]);
    }
  }
}

}  // namespace mtl
