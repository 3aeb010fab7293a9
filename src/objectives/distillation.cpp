// SPDX-License-Identifier: Apache-2.0
#include "objectives/distillation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "model/own_piece.h"
#include "objectives/chunked_losses.h"

namespace amalgam {

std::optional<at::Tensor> TeacherStates::find(const Key& key) const {
    for (const auto* states : {&kept_, &cache_})
        if (const auto found = states->find(key); found != states->end()) return found->second;
    return std::nullopt;
}

at::Tensor TeacherStates::hidden(const TokenBatch& batch, int64_t cursor, ContextGroup* context) {
    const Key key = {cursor, batch.sequences()};
    // Ranks that share a sharded teacher compute together, or not at all.
    WeightsOnDemand* weights = teacher_.weights_on_demand();
    const auto everywhere = [&](bool value) { return weights ? weights->everywhere(value) : value; };
    const auto found = find(key);
    if (everywhere(found.has_value())) return *found;
    const at::NoGradGuard no_grad;
    const at::Tensor states = teacher_.hidden(batch, context).flatten(0, 1);
    ++computed_;
    if (keeps_) kept_[key] = states;
    // Ranks that share sequences find what the others find, though their pieces are not all of one length.
    const int64_t bytes = most_numbers(batch, states.size(1), context) * states.element_size();
    if (everywhere(bytes <= cache_bytes_) && cache_.emplace(key, states).second) cache_bytes_ -= bytes;
    return states;
}

void Distillation::accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                              std::vector<double>& losses) {
    const HeldOuterWeights teacher(teacher_.model(), 0);
    // The student's first weights have all the time of the teacher's pass to arrive.
    if (WeightsOnDemand* student = student_.weights_on_demand())
        for (const int64_t layer : {WeightsOnDemand::outside_blocks, int64_t{0}}) student->prefetch(layer);
    const at::Tensor states = teacher_.hidden(batch, cursor, context_);
    BlockwiseForward forward(student_, batch, activations_, context_);
    const int64_t tokens = batch.tokens.numel();
    const double per_token = tokens > 0 ? weight / double(tokens) : 0.0;
    const auto result = chunked_kl_divergence(forward.hidden(), forward.outer().head().detach(), states, teacher.head(),
                                              job_.temperature, per_token, job_.loss_chunk_tokens,
                                              gradients.of(student_.head_parameter()));
    losses[0] += per_token * result.loss;
    at::Tensor d_hidden = result.d_hidden;
    if (job_.hidden_state_weight > 0.0 && tokens > 0)
        losses[0] += add_hidden_state_loss(forward.hidden(), states, per_token * job_.hidden_state_weight, d_hidden);
    forward.backward(d_hidden, gradients);
}

double add_hidden_state_loss(const at::Tensor& student, const at::Tensor& teacher, double weight,
                             at::Tensor& d_student) {
    const at::Tensor target = teacher.to(at::kFloat), difference = student.to(at::kFloat) - target;
    const at::Tensor scale = target.square().sum(1, true).clamp_min(1e-12);
    d_student = d_student + (difference * (2.0 * weight / scale)).to(d_student.scalar_type());
    return weight * (difference.square() / scale).sum(at::kDouble).item<double>();
}

void NextToken::accumulate(const TokenBatch& batch, int64_t, double weight, GradientSink& gradients,
                           std::vector<double>& losses) {
    BlockwiseForward forward(student_, batch, activations_, context_);
    const int64_t predictions = counted(batch.tokens.numel(), batch.texts());
    const double per_token = predictions > 0 ? weight / double(predictions) : 0.0;
    const at::Tensor targets = own_next_tokens(batch, context_);
    const auto result = chunked_cross_entropy(forward.hidden(), forward.outer().head().detach(), targets, per_token,
                                              chunk_, gradients.of(student_.head_parameter()));
    losses[0] += per_token * result.loss;
    forward.backward(result.d_hidden, gradients);
}

}  // namespace amalgam
