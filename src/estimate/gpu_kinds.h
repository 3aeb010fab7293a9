// SPDX-License-Identifier: Apache-2.0
// Peaks of GPUs as their data sheets have them, so that estimates can be made where there is none.
#pragma once

#include <string>
#include <vector>

namespace amalgam {

struct GpuKind {
    std::string name;      // as people and drivers write it: "H100"
    double bfloat16_peak;  // flop/s, dense, tensor cores
    double float32_peak;   // flop/s, without TF32
};

/// The first is what estimates assume where a GPU is asked for and none is seen.
const std::vector<GpuKind>& gpu_kinds();

/// The kind that `name` contains in any case ("h100", "NVIDIA H100 80GB HBM3"); null if it is not known.
const GpuKind* find_gpu_kind(const std::string& name);

}  // namespace amalgam
