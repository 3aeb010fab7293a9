// SPDX-License-Identifier: Apache-2.0
#include "selection/gated_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "model/own_piece.h"
#include "objectives/blockwise_forward.h"

namespace amalgam {

GatedPass::GatedPass(const CausalLM& teacher, const CausalLM& aligned, std::vector<double> gates,
                     const at::Tensor& tokens, Activations activations, ContextGroup* context)
    : teacher_(teacher),
      aligned_(aligned),
      gates_(std::move(gates)),
      tokens_(own_piece(tokens, context)),
      places_(teacher.places(tokens, context)),
      outer_(teacher, 0) {
    at::Tensor x = outer_.embed(tokens_).detach();
    for (int64_t layer = 0; layer < layers(); ++layer) {
        const int64_t next = layer + 1 < layers() ? layer + 1 : WeightsOnDemand::nothing;
        const HeldBlock block(teacher_, layer, next), other(aligned_, layer, next);
        if (is_empty()) continue;
        const bool keep = activations == Activations::keep;
        const at::AutoGradMode graph(keep);
        Saved& saved = saved_.emplace_back();
        saved.input = leaf(x);
        if (context && !keep) saved.context = std::make_unique<RecordedContext>(*context);
        compute(*block, other->mixer(), gates_[size_t(layer)], saved);
        x = saved.output.detach();
        if (!keep) saved.soft = saved.linear = saved.mixed = saved.output = at::Tensor();
    }
    const at::AutoGradMode graph(true);
    last_ = leaf(x);
    hidden_ = outer_.final_norm(last_);
}

void GatedPass::compute(const Block& block, const Mixer& other, double gate, Saved& saved) const {
    SequencePlaces places = places_;
    if (saved.context) places.context = saved.context.get();
    const at::Tensor normed = block.mixer_input(saved.input);
    saved.soft = block.mixer().forward(normed, places);
    saved.linear = other.forward(normed, places);
    saved.mixed = leaf(at::lerp(saved.linear.detach(), saved.soft.detach(), gate));
    saved.output = block.finish(saved.input, saved.mixed);
}

at::Tensor GatedPass::backward_block(const Saved& saved, int64_t layer, const at::Tensor& d_output,
                                     at::Tensor& d_gate) const {
    const auto direct = torch::autograd::grad({saved.output}, {saved.input, saved.mixed}, {d_output});
    const at::Tensor& d_mixed = direct[1];
    const at::Tensor difference = saved.soft.detach().to(at::kFloat) - saved.linear.detach().to(at::kFloat);
    d_gate = (d_mixed.to(at::kFloat) * difference).sum(at::kDouble);
    if (layer == 0) return {};
    const double gate = gates_[size_t(layer)];
    std::vector<at::Tensor> mixers, d_mixers;
    if (gate > 0.0) {
        mixers.push_back(saved.soft);
        d_mixers.push_back(d_mixed * gate);
    }
    if (gate < 1.0) {
        mixers.push_back(saved.linear);
        d_mixers.push_back(d_mixed * (1.0 - gate));
    }
    return direct[0] + torch::autograd::grad(mixers, {saved.input}, d_mixers)[0];
}

at::Tensor GatedPass::block_output(int64_t layer) const {
    const at::Tensor& output = layer + 1 < layers() ? saved_[size_t(layer) + 1].input : last_;
    return output.detach().flatten(0, 1);
}

std::vector<double> GatedPass::backward(const at::Tensor& d_hidden) {
    at::Tensor d;
    if (!is_empty()) d = torch::autograd::grad({hidden_}, {last_}, {d_hidden.view_as(hidden_)})[0];
    return backward_from(d, [](int64_t, const at::Tensor& of_later_blocks) { return of_later_blocks; });
}

std::vector<double> GatedPass::backward(const at::Tensor& places, const at::Tensor& d_outputs) {
    const at::Tensor none = is_empty() ? at::Tensor() : at::zeros_like(last_.detach());
    return backward_from(none, [&](int64_t layer, const at::Tensor& of_later_blocks) {
        return of_later_blocks.flatten(0, 1)
            .index_add(0, places, d_outputs[layer].to(of_later_blocks.scalar_type()))
            .view_as(of_later_blocks);
    });
}

template <class Add>
std::vector<double> GatedPass::backward_from(at::Tensor d, Add add) {
    std::vector<at::Tensor> d_gates(gates_.size());
    for (int64_t layer = layers() - 1; layer >= 0; --layer) {
        const int64_t next = layer > 0 ? layer - 1 : WeightsOnDemand::nothing;
        const HeldBlock block(teacher_, layer, next), other(aligned_, layer, next);
        if (is_empty()) continue;
        Saved saved = std::exchange(saved_[size_t(layer)], {});
        if (!saved.output.defined()) {
            if (saved.context) saved.context->replay();
            compute(*block, other->mixer(), gates_[size_t(layer)], saved);
        }
        d = backward_block(saved, layer, add(layer, d), d_gates[size_t(layer)]);
    }
    if (is_empty()) return std::vector<double>(gates_.size(), 0.0);
    const at::Tensor host = at::stack(d_gates).cpu();
    return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

}  // namespace amalgam
