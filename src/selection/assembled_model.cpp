// SPDX-License-Identifier: Apache-2.0
#include "selection/assembled_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "model/own_piece.h"

namespace amalgam {

AssembledModel::AssembledModel(const CausalLM& teacher, const CausalLM& aligned, int64_t kept_bytes)
    : teacher_(teacher),
      aligned_(aligned),
      // Ranks of a sharded model compute the same blocks at the same time, so none of them may begin later.
      kept_bytes_(teacher.weights_on_demand() || aligned.weights_on_demand() ? 0.0 : double(kept_bytes)) {}

AssembledModel::Pass* AssembledModel::kept(const TokenBatch& batch, int64_t number, const ContextGroup* context) {
    if (const auto found = passes_.find(number); found != passes_.end()) return &found->second;
    const ModelConfig& c = teacher_.config();
    const double bytes = double(most_numbers(batch, c.layers * c.hidden_size, context)) *
                         double(c10::elementSize(teacher_.compute_type()));
    // An empty batch has nothing to keep, and goes through all blocks with other ranks (weights_on_demand.h).
    if (bytes == 0.0 || bytes_ + bytes > kept_bytes_) return nullptr;
    bytes_ += bytes;
    Pass& pass = passes_[number];
    pass.inputs.resize(size_t(c.layers));
    return &pass;
}

at::Tensor AssembledModel::hidden(const TokenBatch& batch, const Layout& layout, int64_t number,
                                  ContextGroup* context) {
    const at::NoGradGuard no_grad;
    const HeldOuterWeights outer(teacher_, 0);
    const SequencePlaces places = teacher_.places(batch, context);
    const auto layers = int64_t(layout.size());
    Pass* pass = kept(batch, number, context);
    int64_t first = 0;
    if (pass && !pass->layout.empty())
        while (first < layers - 1 && layout[size_t(first)] == pass->layout[size_t(first)]) ++first;
    at::Tensor x = first > 0 ? pass->inputs[size_t(first)] : outer.embed(own_piece(batch.tokens, context));
    for (int64_t layer = first; layer < layers; ++layer) {
        if (pass) pass->inputs[size_t(layer)] = x;
        const std::string& mixer = layout[size_t(layer)];
        const bool is_teachers = mixer == softmax_mixer || mixer == ablated_mixer;
        const HeldBlock block(is_teachers ? teacher_ : aligned_, layer);
        if (x.size(0) == 0) continue;
        x = mixer == ablated_mixer ? block->finish(x, at::zeros_like(x)) : block->forward(x, places);
        ++computed_;
    }
    if (pass) pass->layout = layout;
    return outer.final_norm(x);
}

}  // namespace amalgam
