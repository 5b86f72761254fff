/* Stand-in for NVIDIA's vector_types.h and vector_functions.h. */
#ifndef SIMT_VECTOR_TYPES_H
#define SIMT_VECTOR_TYPES_H

#define SIMT_VECTOR2(name, type, align)                                                            \
    typedef struct __attribute__((aligned(align), may_alias)) name {                               \
        type x, y;                                                                                 \
    } name;                                                                                        \
    static inline __attribute__((unused)) name make_##name(type x, type y)                         \
    {                                                                                              \
        name v = {x, y};                                                                           \
        return v;                                                                                  \
    }
#define SIMT_VECTOR3(name, type)                                                                   \
    typedef struct name {                                                                          \
        type x, y, z;                                                                              \
    } name;                                                                                        \
    static inline __attribute__((unused)) name make_##name(type x, type y, type z)                 \
    {                                                                                              \
        name v = {x, y, z};                                                                        \
        return v;                                                                                  \
    }
#define SIMT_VECTOR4(name, type, align)                                                            \
    typedef struct __attribute__((aligned(align), may_alias)) name {                               \
        type x, y, z, w;                                                                           \
    } name;                                                                                        \
    static inline __attribute__((unused)) name make_##name(type x, type y, type z, type w)         \
    {                                                                                              \
        name v = {x, y, z, w};                                                                     \
        return v;                                                                                  \
    }

SIMT_VECTOR2(char2, signed char, 2)
SIMT_VECTOR4(char4, signed char, 4)
SIMT_VECTOR2(uchar2, unsigned char, 2)
SIMT_VECTOR4(uchar4, unsigned char, 4)
SIMT_VECTOR2(short2, short, 4)
SIMT_VECTOR4(short4, short, 8)
SIMT_VECTOR2(ushort2, unsigned short, 4)
SIMT_VECTOR4(ushort4, unsigned short, 8)
SIMT_VECTOR2(int2, int, 8)
SIMT_VECTOR3(int3, int)
SIMT_VECTOR4(int4, int, 16)
SIMT_VECTOR2(uint2, unsigned, 8)
SIMT_VECTOR3(uint3, unsigned)
SIMT_VECTOR4(uint4, unsigned, 16)
SIMT_VECTOR2(float2, float, 8)
SIMT_VECTOR3(float3, float)
SIMT_VECTOR4(float4, float, 16)
SIMT_VECTOR2(double2, double, 16)
SIMT_VECTOR4(double4, double, 16)
SIMT_VECTOR2(longlong2, long long, 16)
SIMT_VECTOR2(ulonglong2, unsigned long long, 16)

#undef SIMT_VECTOR2
#undef SIMT_VECTOR3
#undef SIMT_VECTOR4

typedef struct dim3 {
    unsigned x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned X = 1, unsigned Y = 1, unsigned Z = 1) : x(X), y(Y), z(Z)
    {
    }
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z)
    {
    }
#endif
} dim3;

#endif
