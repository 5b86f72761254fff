/* Stand-in for NVIDIA's cuda_bf16.h: the type in C, conversions in C++. */
#ifndef SIMT_CUDA_BF16_H
#define SIMT_CUDA_BF16_H

#pragma GCC system_header

#include <string.h>

#include "vector_types.h"

typedef struct __attribute__((aligned(2))) {
    unsigned short x;
} __nv_bfloat16_raw;

/* Round to nearest, ties to even; a NaN becomes CUDA's canonical one. */
static inline unsigned short simt_bf16_of(float v)
{
    unsigned bits;
    memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return 0x7FFFu;
    }
    return (unsigned short)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

static inline float simt_float_of_bf16(unsigned short x)
{
    unsigned bits = (unsigned)x << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#ifndef __cplusplus
typedef __nv_bfloat16_raw __nv_bfloat16;
#else

struct __attribute__((aligned(2))) __nv_bfloat16 {
    unsigned short __x;
    __nv_bfloat16() = default;
    __nv_bfloat16(__nv_bfloat16_raw r) : __x(r.x)
    {
    }
    explicit __nv_bfloat16(float v) : __x(simt_bf16_of(v))
    {
    }
    operator __nv_bfloat16_raw() const
    {
        return __nv_bfloat16_raw{__x};
    }
    operator float() const
    {
        return simt_float_of_bf16(__x);
    }
    __nv_bfloat16 &operator=(float v)
    {
        __x = simt_bf16_of(v);
        return *this;
    }
};
struct __attribute__((aligned(4))) __nv_bfloat162 {
    __nv_bfloat16 x, y;
    __nv_bfloat162() = default;
    __nv_bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) : x(a), y(b)
    {
    }
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline __nv_bfloat16 __float2bfloat16(float v)
{
    return __nv_bfloat16(v);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float v)
{
    return __nv_bfloat16(v);
}
static inline float __bfloat162float(__nv_bfloat16 v)
{
    return (float)v;
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b)
{
    return __nv_bfloat162(__nv_bfloat16(a), __nv_bfloat16(b));
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 v)
{
    return __floats2bfloat162_rn(v.x, v.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 v)
{
    return make_float2((float)v.x, (float)v.y);
}
static inline float __low2float(__nv_bfloat162 v)
{
    return (float)v.x;
}
static inline float __high2float(__nv_bfloat162 v)
{
    return (float)v.y;
}
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v)
{
    return v.x;
}
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v)
{
    return v.y;
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b)
{
    return __nv_bfloat162(a, b);
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v)
{
    return v.__x;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x)
{
    return __nv_bfloat16(__nv_bfloat16_raw{x});
}
#endif

#endif
