/* Half floats (IEEE 754, binary16) as their bits. */
#include "base/half.h"

#include <math.h>
#include <string.h>

float vae_half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, mantissa = half & 0x3ff;
    const uint32_t exponent = half >> 10 & 0x1f;
    float value;
    uint32_t word;
    if (exponent == 0) {
        value = (float)mantissa * 0x1p-24f; /* zero and subnormals */
        memcpy(&word, &value, sizeof word);
        word |= sign;
    } else {
        word = sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | mantissa << 13;
    }
    memcpy(&value, &word, sizeof value);
    return value;
}

uint16_t vae_float_to_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (size >= 0x477ff000) { /* 65520: halfway to what would be the next */
        return (uint16_t)(sign | 0x7c00);
    }
    if (size < 0x38800000) { /* below 2^-14: a multiple of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(value) * 16777216.0f));
    }
    const uint32_t odd = size >> 13 & 1;
    return (uint16_t)(sign | ((size - 0x38000000 + 0xfff + odd) >> 13));
}
