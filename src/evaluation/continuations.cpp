// SPDX-License-Identifier: Apache-2.0
#include "evaluation/continuations.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "model/own_piece.h"
#include "objectives/chunked_losses.h"

namespace amalgam {

ContinuationBatch lay_out(std::span<const Continuation> batch) {
    const int64_t longest = batch.empty() ? 1 : int64_t(batch[0].tokens.size());
    ContinuationBatch result;
    result.tokens = at::zeros({int64_t(batch.size()), longest}, at::kLong);
    for (size_t row = 0; row < batch.size(); ++row) {
        const auto& one = batch[row];
        std::copy(one.tokens.begin(), one.tokens.end(), result.tokens.data_ptr<int64_t>() + int64_t(row) * longest);
        for (int64_t t = one.context; t < int64_t(one.tokens.size()); ++t) {
            result.places.push_back(int64_t(row) * longest + t - 1);
            result.targets.push_back(one.tokens[size_t(t)]);
            result.rows.push_back(row);
        }
    }
    return result;
}

std::vector<Judgement> judge_continuations(const CausalLM& model, std::span<const Continuation> batch,
                                           int64_t loss_chunk, ContextGroup* context) {
    const at::NoGradGuard no_grad;
    const auto [tokens, places, targets, rows] = lay_out(batch);
    const HeldOuterWeights outer(model);
    const at::Tensor hidden = model.hidden(tokens.to(model.device()), context).flatten(0, 1);
    std::vector<Judgement> judgements(batch.size());
    const OwnPlaces own = own_places(places, tokens.size(1), context);
    if (own.which.empty()) return judgements;
    std::vector<int64_t> own_targets;
    for (const size_t k : own.which) own_targets.push_back(targets[k]);
    const TokenLosses losses =
        token_cross_entropy(hidden.index_select(0, at::tensor(own.places, at::kLong).to(model.device())), outer.head(),
                            at::tensor(own_targets, at::kLong).to(model.device()), loss_chunk);
    const at::Tensor loss = losses.loss.to(at::kCPU, at::kDouble), correct = losses.correct.to(at::kCPU, at::kBool);
    for (size_t k = 0; k < own.which.size(); ++k) {
        Judgement& judgement = judgements[rows[own.which[k]]];
        judgement.loglikelihood -= loss.const_data_ptr<double>()[k];
        judgement.greedy = judgement.greedy && correct.const_data_ptr<bool>()[k];
    }
    return judgements;
}

}  // namespace amalgam
