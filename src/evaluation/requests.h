// SPDX-License-Identifier: Apache-2.0
// A model's answers to the requests of a file. Layout in evaluation.h5: outputs/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "estimate/request_counts.h"
#include "evaluation/request_file.h"
#include "model/causal_lm.h"

namespace amalgam {

struct Answers {
    std::string fingerprint;
    std::vector<double> loglikelihood;            // of the continuation, nat; NaN for generated ones
    std::vector<int32_t> greedy;                  // 1: every token of the continuation was the most likely one
    std::vector<std::vector<int32_t>> generated;  // with the token that ended it; empty for judged ones
};

/// Where answers are kept while others are missing (evaluation/kept_answers.h).
struct AnswerPlace {
    std::filesystem::path folder;  // empty: nowhere
    std::string model;             // "teacher", "student"
};

/// What a model of that config has to compute for them. Needs no model.
RequestCounts count_requests(const RequestFile& requests, const ModelConfig& config);

/// Requests are spread over the ranks of `group` by what they cost; the answers are on all of them and do not depend on
/// their number (generated ones but for tokens that are equally likely up to rounding). The model may be sharded over
/// the group: then all of them run every pass together. Answers that `place` holds of these requests are not computed
/// again. Collective. Throws Error(bad_input) if the model does not know a token.
Answers answer_requests(const CausalLM& model, const RequestFile& requests, int64_t loss_chunk,
                        const Communicator& group, const AnswerPlace& place = {});

/// The same until `stop` says so on some rank, which is asked between passes: then nothing, and `place` holds what was
/// answered by then. Answers at work are brought to their end.
std::optional<Answers> answer_requests_until(const std::function<bool()>& stop, const CausalLM& model,
                                             const RequestFile& requests, int64_t loss_chunk, const Communicator& group,
                                             const AnswerPlace& place);

}  // namespace amalgam
