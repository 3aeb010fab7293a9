// SPDX-License-Identifier: Apache-2.0
#include "system/finite.h"

#include <bit>
#include <cstdint>

namespace amalgam {
namespace {

/// A number whose exponent has all bits set is not finite. Asked of the bits, so that no option of a compiler that
/// takes arithmetic for finite can remove the question; without a branch, so that the loop becomes vector instructions.
template <class Bits, class Number>
bool none_has(Bits exponent, std::span<const Number> values) {
    Bits found = 0;
    for (const Number value : values) found |= Bits((std::bit_cast<Bits>(value) & exponent) == exponent);
    return found == 0;
}

}  // namespace

bool all_finite(std::span<const float> values) {
    return none_has<uint32_t>(0x7f800000U, values);
}

bool all_finite(std::span<const double> values) {
    return none_has<uint64_t>(0x7ff0000000000000U, values);
}

}  // namespace amalgam
