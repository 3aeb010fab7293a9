// SPDX-License-Identifier: Apache-2.0
#include "objectives/blockwise_forward.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/own_piece.h"

namespace amalgam {

at::Tensor leaf(const at::Tensor& x) {
    return x.detach().requires_grad_(true);
}

BlockwiseForward::BlockwiseForward(CausalLM& student, const TokenBatch& batch, Activations activations,
                                   ContextGroup* context)
    : student_(student),
      tokens_(own_piece(batch.tokens, context)),
      activations_(activations),
      places_(student.places(batch, context)),
      of_layer_(size_t(student.config().layers)),
      outer_(student, 0) {
    for (const Parameter& p : student_.parameters().all())
        if (p.layer >= 0) of_layer_[size_t(p.layer)].push_back(&p);
    const auto layers = int64_t(of_layer_.size());
    at::Tensor x = outer_.embed(tokens_).detach();
    for (int64_t layer = 0; layer < layers; ++layer) {
        const bool is_last = layer + 1 == layers;
        std::optional<HeldBlock> other_block;
        const HeldBlock& block = (is_last ? last_block_ : other_block)
                                     .emplace(student_, layer, is_last ? WeightsOnDemand::nothing : layer + 1);
        if (is_empty()) continue;
        // The backward pass begins with the last block: nothing is gained by computing that one again.
        const bool keep = is_last || activations_ == Activations::keep;
        const at::AutoGradMode graph(keep);
        Saved& saved = saved_.emplace_back(Saved{leaf(x), at::Tensor(), nullptr});
        if (context && !keep) saved.context = std::make_unique<RecordedContext>(*context);
        const at::Tensor output = forward_block(*block, saved);
        if (keep) saved.output = output;
        x = output.detach();
    }
    last_ = leaf(x);
    hidden_ = outer_.final_norm(last_);
}

at::Tensor BlockwiseForward::forward_block(const Block& block, const Saved& saved) const {
    SequencePlaces places = places_;
    if (saved.context) places.context = saved.context.get();
    return block.forward(saved.input, places);
}

at::Tensor BlockwiseForward::backward_block(const Block& block, int64_t layer, const at::Tensor& d_output,
                                            GradientSink& gradients) {
    Saved& saved = saved_[size_t(layer)];
    if (!saved.output.defined()) {
        if (saved.context) saved.context->replay();
        saved.output = forward_block(block, saved);
    }
    const auto& parameters = of_layer_[size_t(layer)];
    std::vector<at::Tensor> inputs = {saved.input};
    for (const Parameter* p : parameters) inputs.push_back(p->compute);
    const auto found = torch::autograd::grad({saved.output}, inputs, {d_output});
    for (size_t i = 0; i < parameters.size(); ++i) gradients.add(*parameters[i], found[i + 1]);
    saved = {};
    return found[0];
}

void BlockwiseForward::backward(const at::Tensor& d_hidden, GradientSink& gradients) {
    at::Tensor d;
    if (!is_empty()) {
        const auto found = torch::autograd::grad({hidden_}, {last_, outer_.norm()}, {d_hidden.view_as(hidden_)});
        d = found[0];
        gradients.add(student_.norm_parameter(), found[1]);
    }
    for (auto layer = int64_t(of_layer_.size()) - 1; layer >= 0; --layer) {
        const HeldBlock block(student_, layer, layer > 0 ? layer - 1 : WeightsOnDemand::nothing);
        last_block_.reset();
        if (!is_empty()) d = backward_block(*block, layer, d, gradients);
        gradients.complete(layer);
    }
    if (!is_empty())
        gradients.of(student_.embedding_parameter()).index_add_(0, tokens_.flatten(), d.flatten(0, 1).to(at::kFloat));
    gradients.complete(WeightsOnDemand::outside_blocks);
}

}  // namespace amalgam
