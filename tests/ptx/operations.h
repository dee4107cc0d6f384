/*
 * operations.h - the instructions that are understood: a name and the shape of its operands lead to
 * the function that executes it. One family to a file; what our kernels do not use is not there.
 *
 * A shape has a letter for each operand, vectors and pairs taken apart, in the order of the text:
 *     p predicate   h 16 bits   w 32 bits   l 64 bits   i number   L label
 *     m [register + number]   s [register of 32 bits]   g [register of 64 bits]
 */
#ifndef TESTS_PTX_OPERATIONS_H
#define TESTS_PTX_OPERATIONS_H

#include "ptx/machine.h"

#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace ptx
{

struct operation {
    std::string shape;
    handler run;
};
using operation_table = std::unordered_multimap<std::string, operation>;

void add_arithmetic(operation_table &); /* integers, bits, predicates, comparisons */
void add_floating(operation_table &);   /* floating point and conversions */
void add_memory(operation_table &);     /* ld, st, cp.async */
void add_warp(operation_table &);       /* shfl, barriers, branches */
void add_matrix(operation_table &);     /* ldmatrix, mma */

template <class T> constexpr char shape_letter()
{
    if (std::is_same_v<T, bool>) return 'p';
    return sizeof(T) == 2 ? 'h' : sizeof(T) == 4 ? 'w' : 'l';
}

/* A function of numbers as an instruction: F of each lane's operands. */
template <auto F> struct lanewise;
template <class D, class... A, D (*F)(A...)> struct lanewise<F> {
    template <class T> static T operand(const warp &w, uint32_t place, int lane)
    {
        if constexpr (std::is_same_v<T, bool>)
            return (get_mask(w, place) >> lane & 1) != 0;
        else
            return get<T>(w, place, lane);
    }

    template <size_t... K> static void work(warp &w, const inst &i, std::index_sequence<K...>)
    {
        if constexpr (std::is_same_v<D, bool>) {
            uint32_t bits = 0;
            each_lane(w.lanes, [&](int lane) {
                bits |= static_cast<uint32_t>(F(operand<A>(w, i.at[K + 1], lane)...)) << lane;
            });
            put_mask(w, i.at[0], bits);
        } else {
            each_lane(w.lanes, [&](int lane) {
                put<D>(w, i.at[0], lane, F(operand<A>(w, i.at[K + 1], lane)...));
            });
        }
    }

    static void run(warp &w, const inst &i) { work(w, i, std::index_sequence_for<A...>{}); }

    static operation entry() { return { { shape_letter<D>(), shape_letter<A>()... }, run }; }
};

template <auto F> void add(operation_table &table, const char *name)
{
    table.emplace(name, lanewise<F>::entry());
}

} // namespace ptx

#endif
