// Four elements of any storage type as a vector of doubles. A result is rounded once (for the half types by way of
// float).
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

#include "common/dtypes.h"
#include "cpu/vector.h"

namespace mtl {

typedef float FourFloats __attribute__((vector_size(16)));
typedef float FourFloatsAnywhere __attribute__((vector_size(16), aligned(4), may_alias));

constexpr int kDoubles = kLanes<double>;

MTL_INLINE Vector<double> load_doubles(const double* source) { return load(source); }

MTL_INLINE Vector<double> load_doubles(const float* source) {
  return __builtin_convertvector(static_cast<FourFloats>(*reinterpret_cast<const FourFloatsAnywhere*>(source)),
                                 Vector<double>);
}

template <class T>
MTL_INLINE Vector<double> load_doubles(const T* source) {
  const FourFloats values = {widen(source[0]), widen(source[1]), widen(source[2]), widen(source[3])};
  return __builtin_convertvector(values, Vector<double>);
}

MTL_INLINE void store_doubles(double* target, Vector<double> values) { store(target, values); }

MTL_INLINE void store_doubles(float* target, Vector<double> values) {
  *reinterpret_cast<FourFloatsAnywhere*>(target) = __builtin_convertvector(values, FourFloats);
}

template <class T>
MTL_INLINE void store_doubles(T* target, Vector<double> values) {
  const FourFloats rounded = __builtin_convertvector(values, FourFloats);
  for (int lane = 0; lane < kDoubles; ++lane) target[lane] = narrow<T>(static_cast<float>(rounded[lane]));
}

// store_doubles past the caches, where the machine can; the target is aligned to 16 bytes. end_stream() orders what was
// stored so before what follows.
#if defined(__x86_64__)
MTL_INLINE void stream_doubles(float* target, Vector<double> values) {
  _mm_stream_ps(target, static_cast<__m128>(__builtin_convertvector(values, FourFloats)));
}

#endif

MTL_INLINE void stream_doubles(double* target, Vector<double> values) { stream(target, values); }

template <class T>
MTL_INLINE void stream_doubles(T* target, Vector<double> values) {
  store_doubles(target, values);
}

// One element, for what is left behind the last whole vector.
template <class T>
MTL_INLINE T narrow_double(double value) {
  return narrow<T>(static_cast<Wide<T>>(value));
}

}  // namespace mtl
