// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

namespace amalgam::kernels {

/// Instruction sets that the CPU kernels are compiled for, slowest first. `reference` is the plain C++ recurrence;
/// `avx512_bf16` multiplies in bf16 with fp32 sums where the activations are bf16, and equals `avx512` elsewhere;
/// `amx_bf16` does so in tiles where kernels/few_rows_product multiplies, and equals `avx512_bf16` elsewhere.
enum class Isa { automatic, reference, avx2, avx512, avx512_bf16, amx_bf16 };

std::string_view isa_name(Isa isa);

/// Variants that this build contains and this processor executes, slowest first. Always contains `reference`. Asks the
/// system for the tile registers of AMX, on behalf of the whole process.
std::vector<Isa> supported_isas();

/// Turns `automatic` into the fastest supported variant, or into the one named by the environment variable
/// AMALGAM_ISA. Throws std::invalid_argument when the wanted variant is unknown or not supported here.
Isa resolve_isa(Isa wanted);

}  // namespace amalgam::kernels
