// SPDX-License-Identifier: Apache-2.0
#include "training/distillation.h"

#include <ATen/ATen.h>

#include "training/chunked_losses.h"

namespace amalgam {

at::Tensor TeacherStates::hidden(const at::Tensor& tokens, int64_t cursor) {
    const auto key = std::pair{cursor, tokens.size(0)};
    if (const auto found = cache_.find(key); found != cache_.end()) return found->second;
    const at::NoGradGuard no_grad;
    const at::Tensor states = teacher_.hidden(tokens).flatten(0, 1);
    const int64_t bytes = states.numel() * states.element_size();
    if (bytes <= cache_bytes_) {
        cache_bytes_ -= bytes;
        cache_[key] = states;
    }
    return states;
}

void Distillation::accumulate(const at::Tensor& tokens, int64_t cursor, double weight, Gradients& gradients,
                              std::vector<double>& losses) {
    const at::Tensor teacher = teacher_.hidden(tokens, cursor);
    const StudentForward forward(student_, tokens);
    const double per_token = weight / double(tokens.numel());
    const auto result =
        chunked_kl_divergence(forward.hidden.detach(), student_.head().compute.detach(), teacher, teacher_.head(),
                              job_.temperature, per_token, job_.loss_chunk_tokens, gradients.of(student_.head()));
    losses[0] += per_token * result.loss;
    forward.backward(student_, result.d_hidden, gradients);
}

void NextToken::accumulate(const at::Tensor& tokens, int64_t, double weight, Gradients& gradients,
                           std::vector<double>& losses) {
    const StudentForward forward(student_, tokens);
    const double per_token = weight / double(tokens.size(0) * (tokens.size(1) - 1));
    const auto result = chunked_cross_entropy(forward.hidden.detach(), student_.head().compute.detach(),
                                              next_tokens(tokens), per_token, chunk_, gradients.of(student_.head()));
    losses[0] += per_token * result.loss;
    forward.backward(student_, result.d_hidden, gradients);
}

at::Tensor next_tokens(const at::Tensor& tokens) {
    const at::Tensor none = at::full({tokens.size(0), 1}, -1, tokens.options());
    return at::cat({tokens.narrow(1, 1, tokens.size(1) - 1), none}, 1).flatten();
}

}  // namespace amalgam
