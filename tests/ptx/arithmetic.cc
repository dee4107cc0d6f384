/* Integers, bits, predicates, selections, comparisons. */
#include "ptx/operations.h"

#include <limits>

namespace ptx
{

namespace
{

template <class T> T copy(T a) { return a; }

/* Two's complement wraps: sums and products of the unsigned type. */
template <class T> T plus(T a, T b) { return static_cast<T>(a + b); }
template <class T> T minus(T a, T b) { return static_cast<T>(a - b); }
template <class T> T times(T a, T b) { return static_cast<T>(a * b); }
template <class T> T negated(T a) { return static_cast<T>(0 - a); }
template <class T> T times_plus(T a, T b, T c) { return a * b + c; }
template <class T> T smaller(T a, T b) { return a < b ? a : b; }
template <class T> T larger(T a, T b) { return a > b ? a : b; }

template <class D, class T> D wide(T a, T b)
{
    return static_cast<D>(static_cast<D>(a) * static_cast<D>(b));
}

/* By zero: unspecified. */
template <class T> T quotient(T a, T b)
{
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1))
        return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
    return a / b;
}
template <class T> T remainder(T a, T b)
{
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return a % b;
}

template <class T> T both(T a, T b) { return a & b; }
template <class T> T either(T a, T b) { return a | b; }
template <class T> T differ(T a, T b) { return a ^ b; }
template <class T> T inverse(T a) { return static_cast<T>(~a); }
bool not_so(bool a) { return !a; }

/* More than the width shifts everything out. */
template <class T> T left(T a, uint32_t n)
{
    return n < 8 * sizeof(T) ? static_cast<T>(a << n) : 0;
}
template <class T> T right(T a, uint32_t n)
{
    constexpr uint32_t last = 8 * sizeof(T) - 1;
    if (n <= last) return static_cast<T>(a >> n);
    return static_cast<T>(std::is_signed_v<T> ? a >> last : 0);
}

/* `count` bits of a put into b, at `first`. */
uint32_t insert(uint32_t a, uint32_t b, uint32_t first, uint32_t count)
{
    first &= 0xff;
    count &= 0xff;
    uint32_t field = count < 32 ? (1u << count) - 1 : UINT32_MAX;
    field = first < 32 ? field << first : 0;
    return (b & ~field) | (first < 32 ? a << first & field : 0);
}

/* Each nibble of `order` picks one of 8 bytes, b above a; its top bit spreads that byte's sign. */
uint32_t permute(uint32_t a, uint32_t b, uint32_t order)
{
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t out = 0;
    for (int k = 0; k < 4; k++) {
        const uint32_t pick = order >> (4 * k) & 15;
        uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (pick & 7))) & 0xff;
        if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
        out |= byte << (8 * k);
    }
    return out;
}

template <class T> T choose(T a, T b, bool first) { return first ? a : b; }

template <class T> bool equal(T a, T b) { return a == b; }
template <class T> bool unequal(T a, T b) { return a != b; }
template <class T> bool less(T a, T b) { return a < b; }
template <class T> bool at_most(T a, T b) { return a <= b; }
template <class T> bool more(T a, T b) { return a > b; }
template <class T> bool at_least(T a, T b) { return a >= b; }
/* True where one is no number. */
template <class T> bool unordered(T a, T b) { return a != a || b != b; }
template <class T> bool not_less(T a, T b) { return !(a < b); }
template <class T> bool not_at_most(T a, T b) { return !(a <= b); }
template <class T> bool not_more(T a, T b) { return !(a > b); }
template <class T> bool not_at_least(T a, T b) { return !(a >= b); }
/* False where one is no number, unlike C's. */
template <class T> bool ordered_unequal(T a, T b) { return a < b || a > b; }

uint32_t joined(uint16_t low, uint16_t high) { return static_cast<uint32_t>(high) << 16 | low; }
uint64_t joined_words(uint32_t low, uint32_t high)
{
    return static_cast<uint64_t>(high) << 32 | low;
}

template <class T, class D> void split(warp &w, const inst &i)
{
    each_lane(w.lanes, [&](int lane) {
        const D whole = get<D>(w, i.at[2], lane);
        put(w, i.at[0], lane, static_cast<T>(whole));
        put(w, i.at[1], lane, static_cast<T>(whole >> (8 * sizeof(T))));
    });
}

template <class T> void add_comparisons(operation_table &t, const std::string &type)
{
    add<equal<T>>(t, ("setp.eq." + type).c_str());
    add<less<T>>(t, ("setp.lt." + type).c_str());
    add<at_most<T>>(t, ("setp.le." + type).c_str());
    add<more<T>>(t, ("setp.gt." + type).c_str());
    add<at_least<T>>(t, ("setp.ge." + type).c_str());
    if constexpr (std::is_floating_point_v<T>) {
        add<ordered_unequal<T>>(t, ("setp.ne." + type).c_str());
        add<unordered<T>>(t, ("setp.nan." + type).c_str());
        add<unequal<T>>(t, ("setp.neu." + type).c_str());
        add<not_at_least<T>>(t, ("setp.ltu." + type).c_str());
        add<not_more<T>>(t, ("setp.leu." + type).c_str());
        add<not_at_most<T>>(t, ("setp.gtu." + type).c_str());
        add<not_less<T>>(t, ("setp.geu." + type).c_str());
    } else {
        add<unequal<T>>(t, ("setp.ne." + type).c_str());
    }
}

/* Where the sign does not matter: "s", "u" and "b" of so many bits. */
template <auto F> void add_whole(operation_table &t, const std::string &name, const char *bits)
{
    for (const char *kind : { "s", "u", "b" }) add<F>(t, (name + kind + bits).c_str());
}

template <class U, class S> void add_integers(operation_table &t, const char *bits)
{
    add_whole<plus<U>>(t, "add.", bits);
    add_whole<minus<U>>(t, "sub.", bits);
    add_whole<times<U>>(t, "mul.lo.", bits);
    add_whole<times_plus<U>>(t, "mad.lo.", bits);
    add_whole<negated<U>>(t, "neg.", bits);
    add_whole<both<U>>(t, "and.", bits);
    add_whole<either<U>>(t, "or.", bits);
    add_whole<differ<U>>(t, "xor.", bits);
    add_whole<inverse<U>>(t, "not.", bits);
    add_whole<left<U>>(t, "shl.", bits);
    add_whole<copy<U>>(t, "mov.", bits);
    add_whole<choose<U>>(t, "selp.", bits);
    const std::string n = bits;
    add<smaller<S>>(t, ("min.s" + n).c_str());
    add<smaller<U>>(t, ("min.u" + n).c_str());
    add<larger<S>>(t, ("max.s" + n).c_str());
    add<larger<U>>(t, ("max.u" + n).c_str());
    add<quotient<S>>(t, ("div.s" + n).c_str());
    add<quotient<U>>(t, ("div.u" + n).c_str());
    add<remainder<S>>(t, ("rem.s" + n).c_str());
    add<remainder<U>>(t, ("rem.u" + n).c_str());
    add<right<S>>(t, ("shr.s" + n).c_str());
    add<right<U>>(t, ("shr.u" + n).c_str());
    add_comparisons<S>(t, "s" + n);
    add_comparisons<U>(t, "u" + n);
    add<equal<U>>(t, ("setp.eq.b" + n).c_str());
    add<unequal<U>>(t, ("setp.ne.b" + n).c_str());
}

} // namespace

void add_arithmetic(operation_table &t)
{
    add_integers<uint32_t, int32_t>(t, "32");
    add_integers<uint64_t, int64_t>(t, "64");
    add_whole<both<uint16_t>>(t, "and.", "16");
    add_whole<copy<uint16_t>>(t, "mov.", "16");
    add_whole<choose<uint16_t>>(t, "selp.", "16");
    add<right<uint16_t>>(t, "shr.u16");
    add<equal<int16_t>>(t, "setp.eq.s16");
    add<wide<int64_t, int32_t>>(t, "mul.wide.s32");
    add<wide<uint64_t, uint32_t>>(t, "mul.wide.u32");
    add<wide<uint32_t, uint16_t>>(t, "mul.wide.u16");
    add<insert>(t, "bfi.b32");
    add<permute>(t, "prmt.b32");

    add<copy<float>>(t, "mov.f32");
    add<copy<double>>(t, "mov.f64");
    add<choose<float>>(t, "selp.f32");
    add<choose<double>>(t, "selp.f64");
    add_comparisons<float>(t, "f32");
    add_comparisons<double>(t, "f64");

    add<copy<bool>>(t, "mov.pred");
    add<both<bool>>(t, "and.pred");
    add<either<bool>>(t, "or.pred");
    add<differ<bool>>(t, "xor.pred");
    add<not_so>(t, "not.pred");

    add<joined>(t, "mov.b32");
    add<joined_words>(t, "mov.b64");
    t.emplace("mov.b32", operation{ "hhw", split<uint16_t, uint32_t> });
    t.emplace("mov.b64", operation{ "wwl", split<uint32_t, uint64_t> });
}

} // namespace ptx
