// SPDX-License-Identifier: Apache-2.0
#include "evaluation/requests.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <numeric>

#include "evaluation/judging.h"
#include "evaluation/kept_answers.h"
#include "evaluation/progress.h"
#include "generation/engine.h"
#include "generation/memory.h"
#include "system/activity.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Stop = std::function<bool()>;

/// For each item the rank that gets it: the costly ones first, each to the rank that has least.
std::vector<int> dealt_out(const std::vector<double>& costs, int ranks) {
    std::vector<size_t> order(costs.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return costs[a] > costs[b]; });
    std::vector<double> load(size_t(ranks), 0.0);
    std::vector<int> owner(costs.size());
    for (const size_t i : order) {
        const auto least = std::ranges::min_element(load);
        owner[i] = int(least - load.begin());
        *least += costs[i];
    }
    return owner;
}

/// Runs passes of one rank's share; of a sharded model together with the others, whose shares may be longer.
void run_passes(const CausalLM& model, std::deque<std::function<void()>> passes, const Stop& stop) {
    WeightsOnDemand* weights = model.weights_on_demand();
    while (weights ? !weights->everywhere(passes.empty()) : !passes.empty()) {
        if (passes.empty()) {
            const HeldOuterWeights outer(model);
            model.hidden(at::empty({0, 1}, at::TensorOptions(model.device()).dtype(at::kLong)));
        } else {
            passes.front()();
            passes.pop_front();
        }
        if (stop && stop()) passes.clear();
        mark_progress();
    }
}

void judge_missing(const CausalLM& model, const RequestFile& file, int64_t loss_chunk, const Communicator& group,
                   KeptAnswers& kept, const std::string& name, const Stop& stop) {
    auto batches = judged_batches(file, model.config());
    // Batches are kept as they are, so that the arithmetic is that of a job that was not stopped.
    std::erase_if(batches, [&](const JudgedBatch& batch) {
        return std::ranges::all_of(batch.requests, [&](int64_t i) { return kept.found().contains(i); });
    });
    std::vector<double> costs;
    for (const JudgedBatch& batch : batches) costs.push_back(batch.cost);
    const auto owner = dealt_out(costs, group.size());
    std::deque<std::function<void()>> passes;
    Progress progress(name + ": continuations judged", group);
    for (size_t b = 0; b < batches.size(); ++b) {
        if (owner[b] != group.rank()) continue;
        progress.expect(costs[b]);
        for (auto& pass : passes_of(batches[b], model, file, loss_chunk, [&](int64_t i, const Judgement&judgement) {
                 kept.add(i, {judgement.loglikelihood, int32_t(judgement.greedy), {}});
             }))
            passes.push_back(std::move(pass));
        passes.back() = [&progress, last = std::move(passes.back()), cost = costs[b]] {
            last();
            progress.done(cost);
        };
    }
    run_passes(model, std::move(passes), stop);
}

void generate_missing(const CausalLM& model, const RequestFile& file, const Communicator& group, KeptAnswers& kept,
                      const std::string& name, const Stop& stop) {
    std::vector<int64_t> missing;
    std::vector<double> costs;
    for (int64_t i = 0; i < file.size(); ++i) {
        const Request request = file.request(i);
        if (!request.generates() || kept.found().contains(i)) continue;
        missing.push_back(i);
        costs.push_back(double(request.tokens.size()) + tokens_of_a_step * double(request.max_new_tokens));
    }
    const auto owner = dealt_out(costs, group.size());
    std::vector<size_t> own;
    std::vector<Prompt> prompts;
    Progress progress(name + ": answers generated", group);
    for (size_t m = 0; m < missing.size(); ++m) {
        if (owner[m] != group.rank()) continue;
        const Request request = file.request(missing[m]);
        own.push_back(m);
        prompts.push_back({request.tokens, request.max_new_tokens, file.stops(request.stop_set),
                           file.stop_strings(request.stop_set)});
        progress.expect(costs[m]);
    }
    EngineLimits limits;
    if (model.device().is_cpu())  // whose memory is that of all ranks of the node
        limits.memory_bytes = std::max<int64_t>(1, memory_for_caches(model.device()) / group.split_by_node().size());
    generate(
        model, prompts,
        [&](size_t k, std::vector<int32_t> tokens) {
            progress.done(costs[own[k]]);
            kept.add(missing[own[k]], {std::numeric_limits<double>::quiet_NaN(), 0, std::move(tokens)});
        },
        limits, stop);
}

/// What all ranks have, on all of them. Every number is added to zeros: sums are exact.
Answers collected(const RequestFile& file, const KeptAnswers& kept, const Communicator& group) {
    const size_t count = size_t(file.size());
    std::vector<size_t> first;  // for each request: how many tokens were generated, then the tokens
    size_t total = 0;
    for (int64_t i = 0; i < file.size(); ++i) {
        first.push_back(total);
        total += 1 + size_t(file.request(i).max_new_tokens);
    }
    std::vector<double> loglikelihood(count, 0.0), greedy(count, 0.0), generated(total, 0.0);
    const auto put = [&](const std::map<int64_t, Answer>& answers) {
        for (const auto& [request, answer] : answers) {
            const size_t i = size_t(request);
            if (!file.request(request).generates()) loglikelihood[i] = answer.loglikelihood;
            greedy[i] = answer.greedy;
            generated[first[i]] = double(answer.generated.size());
            std::ranges::copy(answer.generated, generated.begin() + std::ptrdiff_t(first[i]) + 1);
        }
    };
    put(kept.own());
    for (auto* values : {&loglikelihood, &greedy, &generated}) group.sum_in_place(std::span<double>(*values));
    put(kept.found());  // every rank has these
    Answers answers{file.fingerprint(), loglikelihood, {greedy.begin(), greedy.end()}, {}};
    for (size_t i = 0; i < count; ++i) {
        const auto begin = generated.begin() + std::ptrdiff_t(first[i]) + 1;
        answers.generated.emplace_back(begin, begin + std::ptrdiff_t(generated[first[i]]));
        if (file.request(int64_t(i)).generates()) answers.loglikelihood[i] = std::numeric_limits<double>::quiet_NaN();
    }
    return answers;
}

}  // namespace

RequestCounts count_requests(const RequestFile& file, const ModelConfig& config) {
    RequestCounts counts;
    const auto add = [](double tokens, double length, double& all, double& mean_length) {
        all += tokens;
        if (all > 0) mean_length += (length - mean_length) * tokens / all;
    };
    for (const JudgedBatch& batch : judged_batches(file, config)) {
        int64_t longest = 0;
        for (const int64_t i : batch.requests) {
            longest = std::max(longest, int64_t(file.request(i).tokens.size()));
            counts.judged_predictions += double(int64_t(file.request(i).tokens.size()) - file.request(i).context);
        }
        ++counts.judged_batches;
        counts.judged += int64_t(batch.requests.size());
        counts.longest_judged = std::max(counts.longest_judged, longest);
        add(batch.cost, double(longest), counts.judged_tokens, counts.judged_length);
    }
    for (int64_t i = 0; i < file.size(); ++i) {
        const Request request = file.request(i);
        if (!request.generates()) continue;
        ++counts.generating;
        const int64_t prompt = int64_t(request.tokens.size()), most = request.max_new_tokens;
        counts.longest_generating = std::max(counts.longest_generating, prompt + most);
        add(double(prompt), double(prompt), counts.prompt_tokens, counts.prompt_length);
        // Each sees the prompt and, on average, half of the answer; in a sequence they would see half of its length.
        add(double(most), double(2 * prompt + most), counts.new_tokens, counts.new_length);
    }
    return counts;
}

Answers answer_requests(const CausalLM& model, const RequestFile& file, int64_t loss_chunk, const Communicator& group,
                        const AnswerPlace& place) {
    return *answer_requests_until({}, model, file, loss_chunk, group, place);
}

std::optional<Answers> answer_requests_until(const Stop& stop, const CausalLM& model, const RequestFile& file,
                                             int64_t loss_chunk, const Communicator& group, const AnswerPlace& place) {
    require(file.largest_token() < model.config().vocabulary_size, "evaluate.requests: holds token ",
            file.largest_token(), " (the model knows ", model.config().vocabulary_size, " tokens)");
    const at::NoGradGuard no_grad;
    KeptAnswers kept(place, file.fingerprint(), group);
    judge_missing(model, file, loss_chunk, group, kept, place.model, stop);
    generate_missing(model, file, group, kept, place.model, stop);
    kept.write();
    const auto is_new = [&](const auto& answer) { return !kept.found().contains(answer.first); };
    const auto answered = int64_t(kept.found().size()) + group.sum(int64_t(std::ranges::count_if(kept.own(), is_new)));
    if (answered < file.size()) return std::nullopt;
    return collected(file, kept, group);
}

}  // namespace amalgam
