// SPDX-License-Identifier: Apache-2.0
// Compares an operation in fp32 (the CPU kernels) with itself in fp64 (LibTorch operations and their autograd): value,
// and the gradient of every input.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "../model/small_model.h"

namespace amalgam::test {

using Inputs = std::vector<at::Tensor>;

struct ValueAndGradients {
    at::Tensor value;
    Inputs gradients;
};

/// Gradients of sum(random * operation(inputs)), computed in `type`. Undefined inputs are handed on.
inline ValueAndGradients differentiate(const std::function<at::Tensor(const Inputs&)>& operation, const Inputs& inputs,
                                       at::ScalarType type) {
    Inputs leaves, defined;
    for (const at::Tensor& t : inputs) {
        leaves.push_back(t.defined() ? t.detach().to(type).requires_grad_(true) : t);
        if (t.defined()) defined.push_back(leaves.back());
    }
    const at::Tensor value = operation(leaves);
    const at::Tensor upstream = normal_numbers(value.sizes(), 99, "upstream").to(type);
    return {value.detach(), torch::autograd::grad({value}, defined, {upstream})};
}

inline void expect_fp64_gradients(const std::function<at::Tensor(const Inputs&)>& operation, const Inputs& inputs,
                                  double tolerance) {
    const auto found = differentiate(operation, inputs, at::kFloat),
               expected = differentiate(operation, inputs, at::kDouble);
    EXPECT_EQ(found.value.sizes(), expected.value.sizes());
    EXPECT_LT(relative_error(found.value, expected.value), tolerance);
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
        EXPECT_EQ(found.gradients[i].sizes(), expected.gradients[i].sizes()) << "input " << i;
        EXPECT_GT(expected.gradients[i].abs().max().item<double>(), 0.0) << "input " << i;
        EXPECT_LT(relative_error(found.gradients[i], expected.gradients[i]), tolerance) << "gradient of input " << i;
    }
}

}  // namespace amalgam::test
