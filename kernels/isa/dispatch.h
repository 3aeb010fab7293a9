// SPDX-License-Identifier: Apache-2.0
// The one way from a public function of a kernel to its version for this processor. Sources that kernels/CMakeLists.txt
// compiles once per instruction set put all they define into a namespace of that name, AMALGAM_ISA: portable, avx2,
// avx512, avx512_bf16. The file with the public functions declares them for every one with AMALGAM_VARIANTS, and picks
// one with AMALGAM_VARIANT. It is itself compiled for any processor. For Isa::amx_bf16 the version is that for
// avx512_bf16; the one operation that has another (few_rows_product) chooses it itself.
#pragma once

#include "kernels/isa/isa.h"

namespace amalgam::kernels {

/// `portable` stands for Isa::reference. `isa` is resolved here.
template <class Variant>
Variant& select_variant(Isa isa, Variant& portable, Variant& avx2, Variant& avx512, Variant& avx512_bf16) {
    switch (resolve_isa(isa)) {
        case Isa::avx2:
            return avx2;
        case Isa::avx512:
            return avx512;
        case Isa::avx512_bf16:
        case Isa::amx_bf16:
            return avx512_bf16;
        default:
            return portable;
    }
}

}  // namespace amalgam::kernels

#ifdef AMALGAM_KERNELS_X86
/// Declarations, once in the namespace of every instruction set.
#define AMALGAM_VARIANTS(...) \
    namespace portable {      \
    __VA_ARGS__               \
    }                         \
    namespace avx2 {          \
    __VA_ARGS__               \
    }                         \
    namespace avx512 {        \
    __VA_ARGS__               \
    }                         \
    namespace avx512_bf16 {   \
    __VA_ARGS__               \
    }
/// The function or table `name` for the instruction set `isa`.
#define AMALGAM_VARIANT(isa, name) select_variant(isa, portable::name, avx2::name, avx512::name, avx512_bf16::name)
#else
#define AMALGAM_VARIANTS(...) \
    namespace portable {      \
    __VA_ARGS__               \
    }
#define AMALGAM_VARIANT(isa, name) select_variant(isa, portable::name, portable::name, portable::name, portable::name)
#endif
