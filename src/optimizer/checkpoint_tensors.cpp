// SPDX-License-Identifier: Apache-2.0
#include "optimizer/checkpoint_tensors.h"

#include <ATen/ATen.h>

namespace amalgam {

std::vector<TensorPiece> checkpoint_tensors(CausalLM& model, AdamW* optimizer) {
    std::vector<TensorPiece> tensors;
    model.parameters().for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
        tensors.push_back(whole_tensor("/model/" + name, t));
    });
    if (!optimizer) return tensors;
    optimizer->for_each_moment([&](const std::string& name, at::Tensor exp_avg, at::Tensor exp_avg_sq) {
        tensors.push_back(whole_tensor("/optimizer/exp_avg/" + name, exp_avg));
        tensors.push_back(whole_tensor("/optimizer/exp_avg_sq/" + name, exp_avg_sq));
    });
    return tensors;
}

}  // namespace amalgam
