// SPDX-License-Identifier: Apache-2.0
#include "app/any_model.h"

#include <ATen/ATen.h>

#include "checkpoints/checkpoint.h"
#include "model/weights.h"
#include "stages/compute.h"

namespace amalgam {

std::unique_ptr<CausalLM> load_any_model(const std::string& path, const std::string& device,
                                         const std::string& precision) {
    const bool cuda = asks_for_cuda("--device", value_named<DeviceChoice>("--device", device));
    const at::Device chosen = cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    const at::ScalarType type = compute_type(value_named<ComputePrecision>("--precision", precision), cuda);
    set_product_precision(type);
    if (std::filesystem::is_directory(path)) return load_teacher(path, chosen, type);
    const Checkpoint checkpoint(path);
    auto model = std::make_unique<CausalLM>(checkpoint.spec(), chosen, type, /*trainable=*/false);
    load_weights(*model, {&checkpoint});
    return model;
}

}  // namespace amalgam
