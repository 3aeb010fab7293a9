// SPDX-License-Identifier: Apache-2.0
#include "training/objective.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

namespace amalgam {

std::vector<Parameter*> all_parameters(CausalLM& model) {
    std::vector<Parameter*> parameters;
    for (Parameter& p : model.parameters().all()) parameters.push_back(&p);
    return parameters;
}

StudentForward::StudentForward(CausalLM& student, const at::Tensor& t)
    : tokens(t),
      embeddings(student.embed(t).detach().requires_grad_(true)),
      hidden(student.hidden_of(embeddings).flatten(0, 1)) {}

void StudentForward::backward(CausalLM& student, const at::Tensor& d_hidden, Gradients& gradients) const {
    std::vector<const Parameter*> parameters;
    std::vector<at::Tensor> inputs = {embeddings};
    for (const Parameter& p : student.parameters().all()) {
        // Embedding and head do not take part in this graph: one is cut off below, the other above it.
        if (&p == &student.embedding() || &p == &student.head()) continue;
        parameters.push_back(&p);
        inputs.push_back(p.compute);
    }
    const auto found = torch::autograd::grad({hidden}, inputs, {d_hidden});
    for (size_t i = 0; i < parameters.size(); ++i) gradients.add(*parameters[i], found[i + 1]);
    const at::Tensor d_embeddings = found[0].flatten(0, 1).to(at::kFloat);
    gradients.of(student.embedding()).index_add_(0, tokens.flatten(), d_embeddings);
}

}  // namespace amalgam
