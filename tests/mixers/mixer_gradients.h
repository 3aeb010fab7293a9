// SPDX-License-Identifier: Apache-2.0
// A mixer by itself: its parameters, and what it computes forward and backward, to compare devices and types.
#pragma once

#include <torch/csrc/autograd/autograd.h>

#include <set>
#include <vector>

#include "../model/small_model.h"
#include "mixers/implementation.h"

namespace amalgam::test {

/// Names of the parameters of this mixer, without what is before them.
inline std::set<std::string> parameters_of(const std::string& mixer, const Options& options) {
    ParameterStore store;
    find_implementation(mixer).make({small_config("qwen3", 1), {mixer}, options}, 0, store);
    store.allocate(device(), at::kFloat, false);
    std::set<std::string> names;
    const std::string prefix = layer_prefix(0) + "linear_attn.";
    store.for_each_named(
        [&](const std::string& name, at::Tensor, Parameter&) { names.insert(name.substr(prefix.size())); });
    return names;
}

/// Gradients of the input and of every parameter, and the output, of the mixer of layer 0 with random weights.
inline std::vector<at::Tensor> forward_and_backward(const ModelSpec& spec, at::Device device, at::ScalarType type) {
    ParameterStore store;
    const auto mixer = find_implementation(spec.layout[0]).make(spec, 0, store);
    store.allocate(device, type, true);
    fill_randomly(store, 1);
    const at::Tensor x = normal_numbers({2, 150, spec.config.hidden_size}, 1).to(device, type).requires_grad_(true);
    const at::Tensor y = mixer->forward(x, {rotary_tables({}, spec.config.head_dim, 0, 150, device)});
    std::vector<at::Tensor> leaves = {x};
    for (const Parameter& p : store.all()) leaves.push_back(p.compute);
    std::vector<at::Tensor> results =
        torch::autograd::grad({y}, leaves, {normal_numbers(y.sizes(), 2).to(device, type)});
    results.push_back(y.detach());
    for (at::Tensor& t : results) t = t.to(at::kCPU);
    return results;
}

}  // namespace amalgam::test
