// Vectors of 32 bytes in GNU vector types, and functions compiled once per instruction set.
//
// A leaf function marked MTL_CLONES exists for plain x86-64, x86-64-v3 (AVX2, FMA) and x86-64-v4 (AVX-512); the loader
// picks one. Everything it calls must be inlined into it (MTL_INLINE), since the attribute does not follow calls.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

// The sanitizers' run-time cannot resolve the clones at load time.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MTL_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4"), noinline))
#else
#define MTL_CLONES __attribute__((noinline))
#endif
#define MTL_INLINE __attribute__((always_inline)) inline

namespace mtl {

template <class T>
struct VectorOf {
  static constexpr int lanes = 32 / sizeof(T);
  typedef T type __attribute__((vector_size(32)));
  typedef T unaligned __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};

template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
constexpr int kLanes = VectorOf<T>::lanes;

template <class T>
MTL_INLINE Vector<T> load(const T* source) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(source);
}

template <class T>
MTL_INLINE void store(T* target, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(target) = value;
}

// Results of more bytes than this do not stay in the caches: stored past them, no line is read before it is written.
constexpr int64_t kStreamBytes = int64_t{16} << 20;

// Whether `stream` may store there.
inline bool can_stream(const void* target) { return reinterpret_cast<uintptr_t>(target) % 16 == 0; }

// Stores past the caches, where the machine can. end_stream() orders what was stored so before what follows.
#if defined(__x86_64__)
MTL_INLINE void stream(float* target, Vector<float> value) {
  const float* lanes = reinterpret_cast<const float*>(&value);
  _mm_stream_ps(target, _mm_loadu_ps(lanes));
  _mm_stream_ps(target + 4, _mm_loadu_ps(lanes + 4));
}

MTL_INLINE void stream(double* target, Vector<double> value) {
  _mm_stream_pd(target, __m128d{value[0], value[1]});
  _mm_stream_pd(target + 2, __m128d{value[2], value[3]});
}

MTL_INLINE void end_stream() { _mm_sfence(); }
#else
template <class T>
MTL_INLINE void stream(T* target, Vector<T> value) {
  store(target, value);
}

MTL_INLINE void end_stream() {}
#endif

// Zeroed memory that starts on a cache line.
template <class T>
class AlignedBuffer {
 public:
  explicit AlignedBuffer(int64_t size)
      : values_(static_cast<T*>(::operator new(size * sizeof(T), std::align_val_t(64)))) {
    std::uninitialized_fill_n(values_.get(), size, T(0));
  }
  T* get() const { return values_.get(); }

 private:
  struct Free {
    void operator()(T* values) const { ::operator delete(values, std::align_val_t(64)); }
  };
  std::unique_ptr<T[], Free> values_;
};

}  // namespace mtl
