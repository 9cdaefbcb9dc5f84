// A CUDA kernel's own source, compiled by g++ and run on the CPU: this header is the vocabulary that kernels use,
// engine.cpp runs them. A word that is missing here is missing on purpose, so that its use does not compile:
// `__shared__` (a static array would outlive its block; kernels use dynamic shared memory), __threadfence and grid
// synchronisation (blocks that wait for each other), __activemask (implicit warp synchrony).
#pragma once

#include <math.h>

#include <atomic>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "emulation/engine.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace cuemu {

template <class T, class... Types>
concept OneOf = (std::same_as<T, Types> || ...);

// The types that CUDA's own overloads take; any other would compile here and not under nvcc.
template <class T>
concept Shuffled = OneOf<T, int, unsigned, long, unsigned long, long long, unsigned long long, float, double>;
template <class T>
concept Loaded =
    Shuffled<T> ||
    OneOf<T, short, unsigned short, char, signed char, unsigned char, uint2, float2, double2, uint4, float4>;
template <class T>
concept Added = OneOf<T, int, unsigned, unsigned long long, float, double>;
template <class T>
concept Compared = OneOf<T, int, unsigned, long long, unsigned long long>;

// Runs `kernel()`, which calls a kernel with its arguments bound, as every thread of every block.
template <class Kernel>
void launch(dim3 grid, dim3 block, size_t shared_bytes, const Kernel& kernel, Where where = Where::current()) {
  const auto call = [](const void* arguments) { (*static_cast<const Kernel*>(arguments))(); };
  run_launch(grid, block, shared_bytes, call, &kernel, where);
}

template <Shuffled T>
T shuffled(uint32_t mask, T value, unsigned source, const Where& where) {
  shuffle(mask, &value, sizeof value, source, where);
  return value;
}

}  // namespace cuemu

inline void __syncthreads(cuemu::Where where = cuemu::Where::current()) { cuemu::barrier(true, where); }
inline int __syncthreads_and(int predicate, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::barrier(predicate != 0, where).all;
}
inline int __syncthreads_or(int predicate, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::barrier(predicate != 0, where).any;
}
inline int __syncthreads_count(int predicate, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::barrier(predicate != 0, where).count;
}

inline void __syncwarp(uint32_t mask = 0xffffffff, cuemu::Where where = cuemu::Where::current()) {
  cuemu::sync_warp(mask, where);
}

template <cuemu::Shuffled T>
T __shfl_sync(uint32_t mask, T value, int lane, int width = warpSize, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::shuffled(mask, value, cuemu::segment(width, where) + (lane & (width - 1)), where);
}
// A lane whose source would lie outside its segment gets its own value: below, above, or beyond the segment's end.
template <cuemu::Shuffled T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = warpSize,
                 cuemu::Where where = cuemu::Where::current()) {
  const unsigned lane = cuemu::lane();
  const bool inside = lane - cuemu::segment(width, where) >= delta;
  return cuemu::shuffled(mask, value, inside ? lane - delta : lane, where);
}
template <cuemu::Shuffled T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = warpSize,
                   cuemu::Where where = cuemu::Where::current()) {
  const unsigned lane = cuemu::lane();
  const bool inside = lane - cuemu::segment(width, where) + delta < static_cast<unsigned>(width);
  return cuemu::shuffled(mask, value, inside ? lane + delta : lane, where);
}
template <cuemu::Shuffled T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = warpSize,
                  cuemu::Where where = cuemu::Where::current()) {
  const unsigned lane = cuemu::lane();
  const unsigned source = lane ^ static_cast<unsigned>(bits);
  const bool inside = source < cuemu::segment(width, where) + width;
  return cuemu::shuffled(mask, value, inside ? source : lane, where);
}

inline uint32_t __ballot_sync(uint32_t mask, int predicate, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::ballot(mask, predicate != 0, where);
}
inline int __any_sync(uint32_t mask, int predicate, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::ballot(mask, predicate != 0, where) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, cuemu::Where where = cuemu::Where::current()) {
  return cuemu::ballot(mask, predicate != 0, where) == mask;
}

// Relaxed, as CUDA's are: they order no other access.
template <cuemu::Added T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*address).fetch_add(value, std::memory_order_relaxed);
}
template <cuemu::Compared T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  std::atomic_ref<T> target(*address);
  T old = target.load(std::memory_order_relaxed);
  while (old < value && !target.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}

template <cuemu::Loaded T>
T __ldg(const T* address) {
  return *address;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
// Operations that no compiler may fuse or split.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }

// Overloads, not templates: they are not ambiguous with std::min, and arguments of different types do not compile
// silently. As in CUDA, the floating-point ones ignore a NaN.
inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline unsigned min(unsigned a, unsigned b) { return b < a ? b : a; }
inline unsigned max(unsigned a, unsigned b) { return a < b ? b : a; }
inline long min(long a, long b) { return b < a ? b : a; }
inline long max(long a, long b) { return a < b ? b : a; }
inline unsigned long min(unsigned long a, unsigned long b) { return b < a ? b : a; }
inline unsigned long max(unsigned long a, unsigned long b) { return a < b ? b : a; }
inline long long min(long long a, long long b) { return b < a ? b : a; }
inline long long max(long long a, long long b) { return a < b ? b : a; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
