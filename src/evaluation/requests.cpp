// SPDX-License-Identifier: Apache-2.0
#include "evaluation/requests.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "evaluation/continuations.h"
#include "evaluation/generation.h"
#include "system/activity.h"
#include "system/error.h"

namespace amalgam {
namespace {

constexpr int64_t batch_tokens = 4096;  // padding included

/// Requests by falling length, so that a batch needs little padding and the last ones dealt out are short.
std::vector<int64_t> by_length(const RequestFile& file, bool generating) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < file.size(); ++i)
        if (file.request(i).generates() == generating) order.push_back(i);
    const auto length = [&](int64_t i) {
        return int64_t(file.request(i).tokens.size()) + file.request(i).max_new_tokens;
    };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    return order;
}

/// Batches are cut without regard to the number of ranks, so that their arithmetic is the same on any.
std::vector<std::vector<int64_t>> in_batches(const RequestFile& file, const std::vector<int64_t>& order) {
    std::vector<std::vector<int64_t>> batches;
    int64_t rows = 0;
    for (const int64_t i : order) {
        if (rows == 0) {
            batches.emplace_back();
            rows = std::max<int64_t>(1, batch_tokens / int64_t(file.request(i).tokens.size()));
        }
        batches.back().push_back(i);
        --rows;
    }
    return batches;
}

}  // namespace

Answers answer_requests(const CausalLM& model, const RequestFile& file, int64_t loss_chunk, const Communicator& group) {
    require(file.largest_token() < model.config().vocabulary_size, "evaluate.requests: holds token ",
            file.largest_token(), " (the model knows ", model.config().vocabulary_size, " tokens)");
    const at::NoGradGuard no_grad;
    const size_t count = size_t(file.size());
    std::vector<double> loglikelihood(count, 0.0), greedy(count, 0.0);
    // Ranks of a sharded model that have no requests left go on with empty batches (weights_on_demand.h).
    const bool in_step = model.weights_on_demand() != nullptr;
    const size_t rank = size_t(group.rank()), ranks = size_t(group.size());
    const auto batches = in_batches(file, by_length(file, false));
    for (size_t b = rank; (in_step ? b - rank : b) < batches.size(); b += ranks) {
        const auto batch = b < batches.size() ? batches[b] : std::vector<int64_t>();
        std::vector<Continuation> continuations;
        for (const int64_t i : batch) continuations.push_back({file.request(i).tokens, file.request(i).context});
        const auto judgements = judge_continuations(model, continuations, loss_chunk);
        for (size_t k = 0; k < batch.size(); ++k) {
            loglikelihood[size_t(batch[k])] = judgements[k].loglikelihood;
            greedy[size_t(batch[k])] = judgements[k].greedy ? 1.0 : 0.0;
        }
        mark_progress();
    }

    // For each request that generates: how many tokens, then the tokens. Whole numbers of this size are exact in
    // double.
    const auto generating = by_length(file, true);
    std::vector<size_t> first;
    size_t total = 0;
    for (const int64_t i : generating) {
        first.push_back(total);
        total += 1 + size_t(file.request(i).max_new_tokens);
    }
    std::vector<double> generated(total, 0.0);
    for (size_t g = rank; (in_step ? g - rank : g) < generating.size(); g += ranks) {
        if (g >= generating.size()) {
            generate_until(model, std::vector<int32_t>{0}, 0, {});
            continue;
        }
        const Request request = file.request(generating[g]);
        const auto tokens = generate_until(model, request.tokens, request.max_new_tokens, file.stops(request.stop_set));
        generated[first[g]] = double(tokens.size());
        std::copy(tokens.begin(), tokens.end(), generated.begin() + std::ptrdiff_t(first[g] + 1));
        mark_progress();
    }

    // Every entry is nonzero on one rank only: sums are exact.
    for (auto* values : {&loglikelihood, &greedy, &generated}) group.sum_in_place(std::span<double>(*values));
    Answers answers{file.fingerprint(), loglikelihood, {greedy.begin(), greedy.end()}, {}};
    answers.generated.resize(count);
    for (size_t g = 0; g < generating.size(); ++g) {
        const auto begin = generated.begin() + std::ptrdiff_t(first[g] + 1);
        answers.generated[size_t(generating[g])].assign(begin, begin + std::ptrdiff_t(generated[first[g]]));
        answers.loglikelihood[size_t(generating[g])] = std::numeric_limits<double>::quiet_NaN();
    }
    return answers;
}

}  // namespace amalgam
