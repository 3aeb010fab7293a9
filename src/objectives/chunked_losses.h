// SPDX-License-Identifier: Apache-2.0
// Losses over the vocabulary, computed over chunks of tokens: logits of one chunk exist at a time, never those of the
// batch. Gradients are made along with the loss, since the logits are there. `chunk`: tokens, 0 for the automatic one.
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

/// Tokens of a chunk where the job names none (job/training_plan.h), for the logits of so many models with this head.
int64_t automatic_loss_chunk(int64_t models, const at::Tensor& head);

struct LossAndGradient {
    double loss = 0.0;    // sum over tokens, nat
    at::Tensor d_hidden;  // weight * d loss / d hidden, as hidden
};

/// Forward KL divergence KL(teacher || student) * temperature^2 of every token (Hinton et al., arXiv 1503.02531).
/// hidden [tokens, width] and head [vocabulary, width] of student and teacher. weight * d loss / d head is added to
/// `d_head` (fp32, as the student's head) where defined.
LossAndGradient chunked_kl_divergence(const at::Tensor& student_hidden, const at::Tensor& student_head,
                                      const at::Tensor& teacher_hidden, const at::Tensor& teacher_head,
                                      double temperature, double weight, int64_t chunk, at::Tensor d_head);

/// Cross entropy of the next token. targets int64 [tokens]; negative ones are left out.
LossAndGradient chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                      double weight, int64_t chunk, at::Tensor d_head);

/// Per token, without gradients: the KL divergence (temperature 1), fp32 [tokens].
at::Tensor token_kl_divergence(const at::Tensor& student_hidden, const at::Tensor& student_head,
                               const at::Tensor& teacher_hidden, const at::Tensor& teacher_head, int64_t chunk);

struct TokenLosses {
    at::Tensor loss;     // fp32 [tokens], 0 where the target is negative
    at::Tensor correct;  // uint8 [tokens]: the target has the largest logit
};
TokenLosses token_cross_entropy(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                                int64_t chunk);

}  // namespace amalgam
