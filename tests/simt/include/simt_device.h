/* The rest of simt.h: atomics, fences, intrinsics. Included by it only. */
#ifndef SIMT_DEVICE_H
#define SIMT_DEVICE_H

#pragma GCC system_header

/* ---- fences and atomics ---- */

/* Atomics are relaxed, as CUDA's: under TSan they publish what was written before only where a
 * __threadfence() came first. */
static inline void __threadfence(void)
{
    simt_fence();
}
static inline void __threadfence_block(void)
{
    simt_fence();
}
static inline void __threadfence_system(void)
{
    simt_fence();
}

template <typename T, typename F> static inline T simt_atomic(T *p, F change)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, change(old), false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
    simt_after_atomic(p);
    return old;
}
#define SIMT_ATOMIC(name, T, expression)                                                           \
    static inline T name(T *p, T v)                                                                \
    {                                                                                              \
        return simt_atomic(p, [v](T old) -> T {                                                    \
            (void)old;                                                                             \
            return (expression);                                                                   \
        });                                                                                        \
    }
#define SIMT_ATOMICS(T)                                                                            \
    SIMT_ATOMIC(atomicExch, T, v)                                                                  \
    SIMT_ATOMIC(atomicMin, T, v < old ? v : old)                                                   \
    SIMT_ATOMIC(atomicMax, T, v > old ? v : old)                                                   \
    SIMT_ATOMIC(atomicAnd, T, old &v)                                                              \
    SIMT_ATOMIC(atomicOr, T, old | v)                                                              \
    SIMT_ATOMIC(atomicXor, T, old ^ v)                                                             \
    static inline T atomicCAS(T *p, T expected, T v)                                               \
    {                                                                                              \
        return simt_atomic(p, [=](T old) -> T { return old == expected ? v : old; });              \
    }
SIMT_ATOMICS(int)
SIMT_ATOMICS(unsigned)
SIMT_ATOMICS(unsigned long long)
SIMT_ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)v))
SIMT_ATOMIC(atomicAdd, unsigned, old + v)
SIMT_ATOMIC(atomicAdd, unsigned long long, old + v)
SIMT_ATOMIC(atomicSub, int, (int)((unsigned)old - (unsigned)v))
SIMT_ATOMIC(atomicSub, unsigned, old - v)
SIMT_ATOMIC(atomicInc, unsigned, old >= v ? 0u : old + 1u)
SIMT_ATOMIC(atomicDec, unsigned, old == 0u || old > v ? v : old - 1u)
#undef SIMT_ATOMICS
#undef SIMT_ATOMIC
/* CUDA has these; vae does not: the order of a sum would depend on timing. */
float atomicAdd(float *, float) = delete;
double atomicAdd(double *, double) = delete;
float atomicExch(float *, float) = delete;

/* ---- loads and stores with a cache hint ---- */

#define SIMT_LOAD(name)                                                                            \
    template <typename T> static inline T name(const T *p, SIMT_HERE)                              \
    {                                                                                              \
        simt_check_vector(p, alignof(T), file, line);                                              \
        return *p;                                                                                 \
    }
#define SIMT_STORE(name)                                                                           \
    template <typename T> static inline void name(T *p, T v, SIMT_HERE)                            \
    {                                                                                              \
        simt_check_vector(p, alignof(T), file, line);                                              \
        *p = v;                                                                                    \
    }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldlu)
SIMT_LOAD(__ldcv)
SIMT_STORE(__stwb)
SIMT_STORE(__stcg)
SIMT_STORE(__stcs)
SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE

/* ---- bits ---- */

template <typename T, typename F> static inline T simt_bits(F from)
{
    static_assert(sizeof(T) == sizeof(F));
    T to;
    memcpy(&to, &from, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float v)
{
    return simt_bits<unsigned>(v);
}
static inline int __float_as_int(float v)
{
    return simt_bits<int>(v);
}
static inline float __uint_as_float(unsigned v)
{
    return simt_bits<float>(v);
}
static inline float __int_as_float(int v)
{
    return simt_bits<float>(v);
}
static inline long long __double_as_longlong(double v)
{
    return simt_bits<long long>(v);
}
static inline double __longlong_as_double(long long v)
{
    return simt_bits<double>(v);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((unsigned long long)a * b >> 32);
}
static inline int __mulhi(int a, int b)
{
    return (int)((long long)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline int __popcll(unsigned long long v)
{
    return __builtin_popcountll(v);
}
static inline int __clz(int v)
{
    return v ? __builtin_clz((unsigned)v) : 32;
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
static inline unsigned __brev(unsigned v)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++) {
        r |= (v >> i & 1u) << (31 - i);
    }
    return r;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n)
{
    return (unsigned)(((unsigned long long)high << 32 | low) << (n & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n)
{
    return (unsigned)(((unsigned long long)high << 32 | low) >> (n & 31));
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    unsigned long long all = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (unsigned i = 0; i < 4; i++) {
        unsigned pick = s >> (4 * i), byte = (unsigned)(all >> (8 * (pick & 7))) & 0xFFu;
        r |= (pick & 8 ? (byte & 0x80u ? 0xFFu : 0u) : byte) << (8 * i);
    }
    return r;
}

/* ---- math ---- */

/* glibc declares functions of these names. */
#define __powf    simt__powf
#define __expf    simt__expf
#define __exp10f  simt__exp10f
#define __logf    simt__logf
#define __log2f   simt__log2f
#define __sinf    simt__sinf
#define __cosf    simt__cosf
#define __sincosf simt__sincosf

#define SIMT_MATH2(name, T, expression)                                                            \
    static inline T name(T a, T b)                                                                 \
    {                                                                                              \
        return (expression);                                                                       \
    }
SIMT_MATH2(__fadd_rn, float, a + b)
SIMT_MATH2(__fsub_rn, float, a - b)
SIMT_MATH2(__fmul_rn, float, a *b)
SIMT_MATH2(__fdiv_rn, float, a / b)
SIMT_MATH2(__fdividef, float, a / b)
SIMT_MATH2(__dadd_rn, double, a + b)
SIMT_MATH2(__dmul_rn, double, a *b)
SIMT_MATH2(__powf, float, powf(a, b))
#undef SIMT_MATH2
#define SIMT_MATH1(name, expression)                                                               \
    static inline float name(float a)                                                              \
    {                                                                                              \
        return (expression);                                                                       \
    }
SIMT_MATH1(__expf, expf(a))
SIMT_MATH1(__exp10f, powf(10.0f, a))
SIMT_MATH1(__logf, logf(a))
SIMT_MATH1(__log2f, log2f(a))
SIMT_MATH1(__sinf, sinf(a))
SIMT_MATH1(__cosf, cosf(a))
SIMT_MATH1(__fsqrt_rn, sqrtf(a))
SIMT_MATH1(__frcp_rn, 1.0f / a)
SIMT_MATH1(__frsqrt_rn, 1.0f / sqrtf(a))
SIMT_MATH1(rsqrtf, 1.0f / sqrtf(a))
SIMT_MATH1(__saturatef, a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f)
#undef SIMT_MATH1
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline double __fma_rn(double a, double b, double c)
{
    return fma(a, b, c);
}
static inline double rsqrt(double a)
{
    return 1.0 / sqrt(a);
}
static inline void __sincosf(float a, float *s, float *c)
{
    *s = sinf(a);
    *c = cosf(a);
}
static inline int __float2int_rn(float a)
{
    return (int)nearbyintf(a);
}
static inline int __float2int_rz(float a)
{
    return (int)a;
}
static inline int __float2int_rd(float a)
{
    return (int)floorf(a);
}
static inline unsigned __float2uint_rn(float a)
{
    return (unsigned)nearbyintf(a);
}
static inline float __int2float_rn(int a)
{
    return (float)a;
}
static inline float __uint2float_rn(unsigned a)
{
    return (float)a;
}

/* CUDA's global min and max; mixed signs go the way of C's conversions. */
#define SIMT_MINMAX(R, A, B)                                                                       \
    static inline R min(A a, B b)                                                                  \
    {                                                                                              \
        return (R)a < (R)b ? (R)a : (R)b;                                                          \
    }                                                                                              \
    static inline R max(A a, B b)                                                                  \
    {                                                                                              \
        return (R)a > (R)b ? (R)a : (R)b;                                                          \
    }
SIMT_MINMAX(int, int, int)
SIMT_MINMAX(unsigned, unsigned, unsigned)
SIMT_MINMAX(unsigned, int, unsigned)
SIMT_MINMAX(unsigned, unsigned, int)
SIMT_MINMAX(long, long, long)
SIMT_MINMAX(unsigned long, unsigned long, unsigned long)
SIMT_MINMAX(long long, long long, long long)
SIMT_MINMAX(unsigned long long, unsigned long long, unsigned long long)
#undef SIMT_MINMAX
static inline float min(float a, float b)
{
    return fminf(a, b);
}
static inline float max(float a, float b)
{
    return fmaxf(a, b);
}
static inline double min(double a, double b)
{
    return fmin(a, b);
}
static inline double max(double a, double b)
{
    return fmax(a, b);
}

#define __trap() simt_trap("__trap()", __FILE__, __LINE__)

#endif
