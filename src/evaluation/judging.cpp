// SPDX-License-Identifier: Apache-2.0
#include "evaluation/judging.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string_view>

#include "estimate/request_counts.h"
#include "objectives/chunked_losses.h"

namespace amalgam {
namespace {

constexpr int64_t least_shared = 8;  // tokens of a context that are worth a pass of their own

std::string_view context_of(const Request& request) {
    return {reinterpret_cast<const char*>(request.tokens.data()), size_t(request.context) * sizeof(int32_t)};
}

int64_t continuation_of(const Request& request) {
    return int64_t(request.tokens.size()) - request.context;
}

/// Whole sequences by falling length, so that a batch needs little padding and the last ones dealt out are short.
void cut_whole(const RequestFile& file, std::vector<int64_t> requests, std::vector<JudgedBatch>& batches) {
    const auto length = [&](int64_t i) { return int64_t(file.request(i).tokens.size()); };
    std::ranges::stable_sort(requests, [&](int64_t a, int64_t b) { return length(a) > length(b); });
    for (size_t first = 0; first < requests.size();) {
        const size_t rows = size_t(std::max<int64_t>(1, judged_batch_tokens / length(requests[first])));
        JudgedBatch batch;
        for (; first < requests.size() && batch.requests.size() < rows; ++first)
            batch.requests.push_back(requests[first]);
        batch.cost = double(batch.requests.size()) * double(length(batch.requests.front()));
        batches.push_back(std::move(batch));
    }
}

/// `groups`: requests of one context each. Groups whose contexts are equally long are computed together.
void cut_shared(const RequestFile& file, const std::vector<std::vector<int64_t>>& groups,
                std::vector<JudgedBatch>& batches) {
    std::map<int64_t, std::vector<size_t>, std::greater<>> by_length;
    for (size_t g = 0; g < groups.size(); ++g) by_length[file.request(groups[g].front()).context].push_back(g);
    for (const auto& [context, members] : by_length) {
        const size_t most = size_t(std::max<int64_t>(1, judged_batch_tokens / context));
        for (size_t first = 0; first < members.size(); first += most) {
            JudgedBatch batch;
            batch.context = context;
            int64_t longest = 0;
            const size_t end = std::min(first + most, members.size());
            for (size_t m = first; m < end; ++m)
                for (const int64_t i : groups[members[m]]) {
                    batch.requests.push_back(i);
                    longest = std::max(longest, continuation_of(file.request(i)));
                }
            batch.cost = double(end - first) * double(context) + double(batch.requests.size()) * double(longest - 1);
            batches.push_back(std::move(batch));
        }
    }
}

/// Predictions to be looked at: row of the hidden states, the token that came, whose it was.
struct Looked {
    std::vector<int64_t> places, targets, owners;
    void add(int64_t place, int64_t target, int64_t owner) {
        places.push_back(place);
        targets.push_back(target);
        owners.push_back(owner);
    }
};

/// hidden [rows, width].
void look(const Looked& looked, const std::vector<int64_t>& requests, const at::Tensor& hidden, const at::Tensor& head,
          int64_t loss_chunk, const std::function<void(int64_t, const Judgement&)>& judged) {
    const auto there = [&](const std::vector<int64_t>& values) {
        return at::tensor(values, at::kLong).to(hidden.device());
    };
    const TokenLosses losses =
        token_cross_entropy(hidden.index_select(0, there(looked.places)), head, there(looked.targets), loss_chunk);
    const at::Tensor loss = losses.loss.to(at::kCPU, at::kDouble), correct = losses.correct.to(at::kCPU, at::kDouble);
    std::map<int64_t, Judgement> found;
    for (size_t k = 0; k < looked.owners.size(); ++k) {
        Judgement& judgement = found[looked.owners[k]];
        judgement.loglikelihood -= loss.const_data_ptr<double>()[k];
        judgement.greedy = judgement.greedy && correct.const_data_ptr<double>()[k] != 0.0;
    }
    for (const int64_t i : requests) judged(i, found[i]);
}

/// One pass over whole sequences.
void judge_whole(const JudgedBatch& batch, const CausalLM& model, const RequestFile& file, int64_t loss_chunk,
                 const std::function<void(int64_t, const Judgement&)>& judged) {
    std::vector<Continuation> continuations;
    for (const int64_t i : batch.requests) continuations.push_back({file.request(i).tokens, file.request(i).context});
    const auto judgements = judge_continuations(model, continuations, loss_chunk);
    for (size_t k = 0; k < judgements.size(); ++k) judged(batch.requests[k], judgements[k]);
}

/// Contexts in the first slots, then a slot for every continuation.
class SharedContexts {
  public:
    SharedContexts(const JudgedBatch& batch, const CausalLM& model, const RequestFile& file)
        : batch_(batch), model_(model), file_(file) {
        for (const int64_t i : batch.requests) {
            const Request request = file.request(i);
            if (firsts_.empty() || context_of(request) != context_of(file.request(firsts_.back())))
                firsts_.push_back(i);
            context_row_.push_back(int64_t(firsts_.size()) - 1);
            longest_ = std::max(longest_, continuation_of(request));
        }
    }

    bool needs_continuations() const { return longest_ > 1; }

    void compute_contexts() {
        const int64_t contexts = int64_t(firsts_.size()), rows = int64_t(batch_.requests.size());
        cache_ = model_.make_cache({contexts + rows, batch_.context + longest_});
        const at::Tensor tokens = at::empty({contexts, batch_.context}, at::kLong);
        for (int64_t c = 0; c < contexts; ++c)
            std::copy_n(file_.request(firsts_[size_t(c)]).tokens.begin(), batch_.context,
                        tokens.data_ptr<int64_t>() + c * batch_.context);
        last_ = model_.hidden(tokens.to(model_.device()), cache_, CacheChunk{slots(0, contexts), 0})
                    .select(1, batch_.context - 1);
    }

    void compute_continuations() {
        const int64_t contexts = int64_t(firsts_.size()), rows = int64_t(batch_.requests.size()), time = longest_ - 1;
        const at::Tensor tokens = at::zeros({rows, time}, at::kLong), own = slots(contexts, rows);
        for (int64_t row = 0; row < rows; ++row) {
            const Request request = file_.request(batch_.requests[size_t(row)]);
            std::copy_n(request.tokens.begin() + request.context, continuation_of(request) - 1,
                        tokens.data_ptr<int64_t>() + row * time);
        }
        cache_.copy(at::tensor(context_row_, at::kLong).to(model_.device()), own, batch_.context);
        rest_ = model_.hidden(tokens.to(model_.device()), cache_, CacheChunk{own, batch_.context});
    }

    void judge(const at::Tensor& head, int64_t loss_chunk,
               const std::function<void(int64_t, const Judgement&)>& judged) {
        const int64_t contexts = int64_t(firsts_.size()), time = longest_ - 1;
        Looked looked;
        for (size_t row = 0; row < batch_.requests.size(); ++row) {
            const Request request = file_.request(batch_.requests[row]);
            for (int64_t t = 0; t < continuation_of(request); ++t)
                looked.add(t == 0 ? context_row_[row] : contexts + int64_t(row) * time + t - 1,
                           request.tokens[size_t(request.context + t)], batch_.requests[row]);
        }
        const at::Tensor hidden = rest_.defined() ? at::cat({last_, rest_.flatten(0, 1)}) : last_;
        look(looked, batch_.requests, hidden, head, loss_chunk, judged);
    }

  private:
    at::Tensor slots(int64_t first, int64_t count) const {
        return at::arange(first, first + count, at::TensorOptions(model_.device()).dtype(at::kLong));
    }

    JudgedBatch batch_;
    const CausalLM& model_;
    const RequestFile& file_;
    std::vector<int64_t> firsts_;       // a request of each context
    std::vector<int64_t> context_row_;  // of each request
    int64_t longest_ = 0;
    ModelCache cache_;
    at::Tensor last_, rest_;  // hidden states at the contexts' last tokens, and of the continuations
};

}  // namespace

std::vector<JudgedBatch> judged_batches(const RequestFile& file, const ModelConfig& config) {
    std::map<std::string_view, std::vector<int64_t>> by_context;
    for (int64_t i = 0; i < file.size(); ++i)
        if (!file.request(i).generates()) by_context[context_of(file.request(i))].push_back(i);
    std::vector<int64_t> alone;
    std::vector<std::vector<int64_t>> groups;
    for (const auto& [context, requests] : by_context) {
        const bool shared = requests.size() > 1 && file.request(requests.front()).context >= least_shared &&
                            config.rope.rope_type != "dynamic";
        if (shared)
            groups.push_back(requests);
        else
            alone.insert(alone.end(), requests.begin(), requests.end());
    }
    std::ranges::sort(alone);
    std::ranges::sort(groups);
    std::vector<JudgedBatch> batches;
    cut_whole(file, std::move(alone), batches);
    cut_shared(file, groups, batches);
    return batches;
}

std::vector<std::function<void()>> passes_of(const JudgedBatch& batch, const CausalLM& model, const RequestFile& file,
                                             int64_t loss_chunk,
                                             std::function<void(int64_t request, const Judgement&)> judged) {
    if (batch.context == 0) return {[=, &model, &file] { judge_whole(batch, model, file, loss_chunk, judged); }};
    const auto contexts = std::make_shared<SharedContexts>(batch, model, file);
    // Every pass holds the outer weights once more than its forward pass does, like the empty passes of other ranks.
    if (!contexts->needs_continuations())
        return {[=, &model] {
            const HeldOuterWeights outer(model);
            contexts->compute_contexts();
            contexts->judge(outer.head(), loss_chunk, judged);
        }};
    return {[=, &model] {
                const HeldOuterWeights outer(model);
                contexts->compute_contexts();
            },
            [=, &model] {
                const HeldOuterWeights outer(model);
                contexts->compute_continuations();
                contexts->judge(outer.head(), loss_chunk, judged);
            }};
}

}  // namespace amalgam
