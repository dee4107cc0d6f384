/*
 * Floating point. Results that are no number are the one that the document calls canonical.
 * Compiled without contraction: a product and a sum stay two roundings.
 */
#include "ptx/operations.h"

#include <cmath>

namespace ptx
{

namespace
{

template <class To, class From> To bits_of(From x)
{
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To out;
    memcpy(&out, &x, sizeof out);
    return out;
}

float canonical(float x) { return x != x ? bits_of<float>(0x7fffffffu) : x; }
double canonical(double x) { return x != x ? bits_of<double>(UINT64_C(0x7ff8000000000000)) : x; }

template <class T> T sum(T a, T b) { return canonical(a + b); }
template <class T> T difference(T a, T b) { return canonical(a - b); }
template <class T> T product(T a, T b) { return canonical(a * b); }
template <class T> T quotient(T a, T b) { return canonical(a / b); }
template <class T> T fused(T a, T b, T c) { return canonical(std::fma(a, b, c)); }
template <class T> T absolute(T a) { return std::fabs(a); }
template <class T> T negated(T a) { return -a; }
float reciprocal(float a) { return canonical(1.0f / a); }
float root(float a) { return canonical(std::sqrt(a)); }

/* The exact a*b + c is s + rest: where the nearest float lies above it, take the one below. */
float fused_down(float a, float b, float c)
{
    const float near = std::fma(a, b, c);
    if (near != near) return canonical(near);
    const double p = static_cast<double>(a) * b, s = p + c;
    if (s == 0.0) return std::signbit(p) || std::signbit(static_cast<double>(c)) ? -0.0f : 0.0f;
    const double big = s - p, rest = (p - (s - big)) + (c - big);
    const bool above = near > s || (near == s && rest < 0);
    return above ? std::nextafter(near, -HUGE_VALF) : near;
}

/* The one that is a number, where only one is; -0 < +0. */
float larger(float a, float b)
{
    if (a != a) return canonical(b);
    if (b != b) return a;
    if (a == b) return std::signbit(a) ? b : a;
    return a > b ? a : b;
}

float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

/* The approximate ones may err by two units in the last place: here they are correctly rounded. */
float power_of_two(float a)
{
    return canonical(static_cast<float>(std::exp2(static_cast<double>(a))));
}
float power_of_two_flushed(float a) { return flushed(power_of_two(flushed(a))); }

/* Divisors beyond 2^126 have a reciprocal of zero. */
float quotient_approximate(float a, float b)
{
    if (std::fabs(b) > 0x1p126f && !std::isinf(b)) return canonical(a * std::copysign(0.0f, b));
    return quotient(a, b);
}

float saturated(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }

/* ---- conversions ---- */

template <class D, class A> D converted(A a) { return static_cast<D>(a); }
int64_t low_half(uint64_t a) { return static_cast<int32_t>(a); }
float narrowed(double a) { return canonical(static_cast<float>(a)); }
double widened(float a) { return canonical(static_cast<double>(a)); }

uint16_t to_bf16(float a)
{
    if (a != a) return 0x7fff;
    const uint32_t bits = bits_of<uint32_t>(a), kept = bits >> 16, rest = bits & 0xffff;
    const bool up = rest > 0x8000 || (rest == 0x8000 && (kept & 1) != 0);
    return static_cast<uint16_t>(kept + (up ? 1 : 0));
}

uint32_t to_bf16_pair(float high, float low)
{
    return static_cast<uint32_t>(to_bf16(high)) << 16 | to_bf16(low);
}

/* Half precision: 11 bits, the smallest step 2^-24. */
uint16_t to_f16(float a)
{
    if (a != a) return 0x7fff;
    const uint32_t sign = std::signbit(a) ? 0x8000 : 0;
    const double x = std::fabs(static_cast<double>(a));
    if (x >= 65520.0) return static_cast<uint16_t>(sign | 0x7c00); /* half a step above the last */
    if (x < 0x1p-14)
        return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(x * 0x1p24)));
    const int e = std::ilogb(x);
    const uint32_t m =
        static_cast<uint32_t>(std::nearbyint(std::scalbn(x, 10 - e))); /* 2^10..2^11 */
    return static_cast<uint16_t>(sign | ((static_cast<uint32_t>(e + 15) << 10) + (m - 1024)));
}

float from_f16(uint16_t bits)
{
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    const int e = bits >> 10 & 31, m = bits & 1023;
    if (e == 31) return m == 0 ? sign * HUGE_VALF : canonical(NAN);
    return sign * (e == 0 ? std::ldexp(static_cast<float>(m), -24)
                          : std::ldexp(static_cast<float>(m + 1024), e - 25));
}

} // namespace

void add_floating(operation_table &t)
{
    add<sum<float>>(t, "add.f32");
    add<sum<double>>(t, "add.f64");
    add<difference<float>>(t, "sub.f32");
    add<difference<double>>(t, "sub.f64");
    add<product<float>>(t, "mul.f32");
    add<product<double>>(t, "mul.f64");
    add<fused<float>>(t, "fma.rn.f32");
    add<fused<double>>(t, "fma.rn.f64");
    add<fused_down>(t, "fma.rm.f32");
    add<quotient<float>>(t, "div.rn.f32");
    add<quotient_approximate>(t, "div.approx.f32");
    add<reciprocal>(t, "rcp.rn.f32");
    add<root>(t, "sqrt.rn.f32");
    add<absolute<float>>(t, "abs.f32");
    add<absolute<double>>(t, "abs.f64");
    add<negated<float>>(t, "neg.f32");
    add<negated<double>>(t, "neg.f64");
    add<larger>(t, "max.f32");
    add<power_of_two>(t, "ex2.approx.f32");
    add<power_of_two_flushed>(t, "ex2.approx.ftz.f32");

    add<saturated>(t, "cvt.sat.f32.f32");
    add<widened>(t, "cvt.f64.f32");
    add<narrowed>(t, "cvt.rn.f32.f64");
    add<converted<float, int32_t>>(t, "cvt.rn.f32.s32");
    add<converted<float, uint32_t>>(t, "cvt.rn.f32.u32");
    add<converted<int64_t, int32_t>>(t, "cvt.s64.s32");
    add<low_half>(t, "cvt.s64.s32"); /* of a register wider than the type */
    add<converted<uint64_t, uint32_t>>(t, "cvt.u64.u32");
    add<converted<uint32_t, uint64_t>>(t, "cvt.u32.u64");
    add<converted<uint32_t, uint16_t>>(t, "cvt.u32.u16");
    add<converted<uint16_t, uint32_t>>(t, "cvt.u16.u32");
    add<to_bf16>(t, "cvt.rn.bf16.f32");
    add<to_bf16_pair>(t, "cvt.rn.bf16x2.f32");
    add<to_f16>(t, "cvt.rn.f16.f32");
    add<from_f16>(t, "cvt.f32.f16");
}

} // namespace ptx
