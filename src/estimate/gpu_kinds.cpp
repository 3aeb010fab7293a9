// SPDX-License-Identifier: Apache-2.0
#include "estimate/gpu_kinds.h"

#include <algorithm>
#include <cctype>

namespace amalgam {

const std::vector<GpuKind>& gpu_kinds() {
    // NVIDIA's data sheets of the SXM modules, without sparsity.
    static const std::vector<GpuKind> kinds = {
        {"H100", 989e12, 67e12}, {"H200", 989e12, 67e12}, {"A100", 312e12, 19.5e12}};
    return kinds;
}

const GpuKind* find_gpu_kind(const std::string& name) {
    std::string upper = name;
    std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return char(std::toupper(c)); });
    for (const GpuKind& kind : gpu_kinds())
        if (upper.find(kind.name) != std::string::npos) return &kind;
    return nullptr;
}

}  // namespace amalgam
