// SPDX-License-Identifier: Apache-2.0
#include "generation/engine.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "generation/memory.h"
#include "system/activity.h"

namespace amalgam {
namespace {

CacheSize cache_size(const CausalLM& model, int64_t capacity, const EngineLimits& limits) {
    const int64_t memory = limits.memory_bytes > 0 ? limits.memory_bytes : memory_for_caches(model.device());
    return {slots_that_fit(model, capacity, limits.slots, memory), capacity};
}

}  // namespace

GenerationEngine::GenerationEngine(const CausalLM& model, int64_t capacity, const EngineLimits& limits)
    : limits_(limits), decoder_(model, cache_size(model, capacity, limits)) {
    free_.resize(size_t(slots()));
    std::iota(free_.rbegin(), free_.rend(), 0);
}

void GenerationEngine::generate(std::span<const Prompt> prompts, const Finished& finished) {
    const at::NoGradGuard no_grad;
    prompts_ = prompts;
    waiting_.clear();
    for (size_t i = 0; i < prompts.size(); ++i) {
        if (prompts[i].count > 0)
            waiting_.push_back(i);
        else
            finished(i, {});
    }
    // Equal lengths stand together, and the longest go first: what is left at the end is short.
    std::stable_sort(waiting_.begin(), waiting_.end(), [&](size_t a, size_t b) {
        return prompts[a].tokens.size() != prompts[b].tokens.size()
                   ? prompts[a].tokens.size() < prompts[b].tokens.size()
                   : a > b;
    });
    decoder_.on_own_stream([&] { run(finished); });
}

void GenerationEngine::run(const Finished& finished) {
    WeightsOnDemand* weights = decoder_.model().weights_on_demand();
    while (true) {
        const bool idle = waiting_.empty() && prefill_.sequences.empty() && active_.empty();
        if (weights ? weights->everywhere(idle) : idle) break;
        if (prefill_.sequences.empty() && !waiting_.empty() && !free_.empty()) start_prefill();
        if (!prefill_.sequences.empty())
            prefill_pass();
        else if (!active_.empty())
            step_pass();
        else
            decoder_.empty_pass();
        deliver(1, finished);
        mark_progress();
    }
    deliver(0, finished);
}

void GenerationEngine::start_prefill() {
    const int64_t time = int64_t(prompts_[waiting_.back()].tokens.size());
    const size_t most = std::min(free_.size(), size_t(std::max<int64_t>(1, limits_.chunk_tokens / time)));
    std::vector<int64_t> slots;
    while (!waiting_.empty() && slots.size() < most && int64_t(prompts_[waiting_.back()].tokens.size()) == time) {
        prefill_.sequences.push_back(std::make_shared<Sequence>(Sequence{waiting_.back(), free_.back(), 0, false, {}}));
        slots.push_back(free_.back());
        waiting_.pop_back();
        free_.pop_back();
    }
    prefill_.first = 0;
    prefill_.tokens = at::empty({int64_t(slots.size()), time}, at::kLong);
    int64_t* to = prefill_.tokens.data_ptr<int64_t>();
    for (const auto& sequence : prefill_.sequences) to = std::ranges::copy(prompts_[sequence->prompt].tokens, to).out;
    prefill_.slots = on_device(at::tensor(slots, at::kLong), decoder_.model().device());
}

void GenerationEngine::prefill_pass() {
    const int64_t rows = prefill_.tokens.size(0), length = prefill_.tokens.size(1), first = prefill_.first;
    const int64_t time = std::min(length - first, std::max<int64_t>(1, limits_.chunk_tokens / rows));
    const at::Tensor chosen =
        decoder_.prefill(prefill_.tokens.narrow(1, first, time).contiguous(), prefill_.slots, first, length);
    prefill_.first += time;
    if (prefill_.first < length) return;
    Sequences sequences;
    std::swap(sequences, prefill_.sequences);
    active_.insert(active_.end(), sequences.begin(), sequences.end());
    rows_changed_ = true;
    ask(sequences, chosen);
}

void GenerationEngine::step_pass() {
    if (rows_changed_) {
        std::vector<int64_t> slots;
        for (const auto& sequence : active_) slots.push_back(sequence->slot);
        decoder_.lay_out(slots);
        rows_changed_ = false;
    }
    ask(Sequences(active_), decoder_.step());
}

void GenerationEngine::ask(const Sequences& sequences, const at::Tensor& tokens) {
    chosen_.push_back({sequences, HostCopy(tokens)});
    for (const auto& sequence : sequences)
        if (++sequence->asked == prompts_[sequence->prompt].count) leave(sequence);
}

void GenerationEngine::leave(const std::shared_ptr<Sequence>& sequence) {
    const auto found = std::find(active_.begin(), active_.end(), sequence);
    if (found == active_.end()) return;
    active_.erase(found);
    free_.push_back(sequence->slot);
    rows_changed_ = true;
}

void GenerationEngine::deliver(size_t pending, const Finished& finished) {
    for (; chosen_.size() > pending; chosen_.pop_front()) {
        const Chosen& chosen = chosen_.front();
        const int64_t* tokens = chosen.tokens.wait();
        for (size_t i = 0; i < chosen.sequences.size(); ++i) {
            const auto& sequence = chosen.sequences[i];
            if (sequence->done) continue;  // had ended before this token was read
            const Prompt& prompt = prompts_[sequence->prompt];
            sequence->tokens.push_back(int32_t(tokens[i]));
            sequence->done = int64_t(sequence->tokens.size()) == prompt.count ||
                             std::binary_search(prompt.stops.begin(), prompt.stops.end(), sequence->tokens.back());
            if (!sequence->done) continue;
            leave(sequence);
            finished(sequence->prompt, std::move(sequence->tokens));
        }
    }
}

void generate(const CausalLM& model, std::span<const Prompt> prompts, const GenerationEngine::Finished& finished,
              const EngineLimits& limits) {
    const auto need = [&](size_t i) { return int64_t(prompts[i].tokens.size()) + prompts[i].count; };
    std::vector<size_t> order(prompts.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return need(a) > need(b); });
    WeightsOnDemand* weights = model.weights_on_demand();
    for (size_t next = 0;;) {
        // Ranks of a sharded model go on together, some of them with an engine that has nothing to do.
        const bool none = next == order.size();
        if (weights ? weights->everywhere(none) : none) break;
        const int64_t capacity = none ? 1 : need(order[next]);
        std::vector<size_t> members;
        std::vector<Prompt> own;
        for (; next < order.size() && 2 * need(order[next]) >= capacity; ++next) {
            members.push_back(order[next]);
            own.push_back(prompts[order[next]]);
        }
        EngineLimits own_limits = limits;
        own_limits.slots = std::clamp<int64_t>(int64_t(own.size()), 1, limits.slots);
        GenerationEngine(model, capacity, own_limits).generate(own, [&](size_t i, std::vector<int32_t> tokens) {
            finished(members[i], std::move(tokens));
        });
    }
}

std::vector<std::vector<int32_t>> generate(const CausalLM& model, std::span<const Prompt> prompts,
                                           const EngineLimits& limits) {
    std::vector<std::vector<int32_t>> answers(prompts.size());
    generate(
        model, prompts, [&](size_t i, std::vector<int32_t> tokens) { answers[i] = std::move(tokens); }, limits);
    return answers;
}

}  // namespace amalgam
