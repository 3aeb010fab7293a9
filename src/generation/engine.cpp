// SPDX-License-Identifier: Apache-2.0
#include "generation/engine.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <numeric>

#include "estimate/request_counts.h"
#include "generation/memory.h"
#include "system/activity.h"

namespace amalgam {
namespace {

/// A GPU's attention is planned anew for every length.
constexpr int64_t gpu_length_multiple = 128;

EngineLimits with_defaults(EngineLimits limits, const CausalLM& model) {
    const bool gpu = model.device().is_cuda();
    if (limits.slots == 0) limits.slots = gpu ? 256 : 64;
    if (limits.chunk_tokens == 0)
        limits.chunk_tokens = prompt_chunk_tokens(!gpu, model.config().intermediate_size,
                                                  int64_t(c10::elementSize(model.compute_type())));
    if (limits.memory_bytes == 0) limits.memory_bytes = memory_for_caches(model.device());
    return limits;
}

CacheSize cache_size(const CausalLM& model, int64_t capacity, const EngineLimits& limits) {
    return {slots_that_fit(model, capacity, limits.slots, limits.memory_bytes), capacity};
}

}  // namespace

GenerationEngine::GenerationEngine(const CausalLM& model, int64_t capacity, const EngineLimits& limits)
    : limits_(with_defaults(limits, model)), decoder_(model, cache_size(model, capacity, limits_)) {
    free_.resize(size_t(slots()));
    std::iota(free_.rbegin(), free_.rend(), 0);
}

void GenerationEngine::generate(std::span<const Prompt> prompts, const Finished& finished,
                                const std::function<bool()>& stop) {
    const at::NoGradGuard no_grad;
    prompts_ = prompts;
    waiting_.clear();
    for (size_t i = 0; i < prompts.size(); ++i) {
        if (prompts[i].count > 0)
            waiting_.push_back(i);
        else
            finished(i, {});
    }
    // Like lengths stand together, and the longest go first: what is left at the end is short.
    std::stable_sort(waiting_.begin(), waiting_.end(), [&](size_t a, size_t b) {
        return prompts[a].tokens.size() != prompts[b].tokens.size()
                   ? prompts[a].tokens.size() < prompts[b].tokens.size()
                   : a > b;
    });
    decoder_.on_own_stream([&] { run(finished, stop); });
}

void GenerationEngine::run(const Finished& finished, const std::function<bool()>& stop) {
    WeightsOnDemand* weights = decoder_.model().weights_on_demand();
    while (true) {
        if (stop && stop()) waiting_.clear();
        const bool idle = waiting_.empty() && prefill_.sequences.empty() && active_.empty();
        if (weights ? weights->everywhere(idle) : idle) break;
        if (prefill_.sequences.empty() && admits()) start_prefill();
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

int64_t GenerationEngine::waiting_length(size_t ahead) const {
    return int64_t(prompts_[waiting_[waiting_.size() - 1 - ahead]].tokens.size());
}

GenerationEngine::Group GenerationEngine::next_group() const {
    const CausalLM& model = decoder_.model();
    const int64_t longest = waiting_length(0);
    int64_t time = longest;
    if (model.device().is_cuda())
        time = std::min((time + gpu_length_multiple - 1) / gpu_length_multiple * gpu_length_multiple, capacity());
    if (time > limits_.chunk_tokens) return {longest, 1};
    // A padded prompt costs as much as the longest. With `dynamic` scaling the rotation depends on the length.
    const bool equal = model.config().rope.rope_type == "dynamic";
    const int64_t shortest = equal ? longest : longest * 7 / 8;
    int64_t rows = 1;
    while (rows < int64_t(waiting_.size()) && (rows + 1) * time <= limits_.chunk_tokens &&
           waiting_length(size_t(rows)) >= shortest)
        ++rows;
    return {equal ? longest : time, rows};
}

bool GenerationEngine::admits() const {
    if (waiting_.empty() || free_.empty()) return false;
    return active_.empty() || int64_t(free_.size()) >= std::min(next_group().rows, std::max<int64_t>(1, slots() / 8));
}

void GenerationEngine::start_prefill() {
    const Group group = next_group();
    const int64_t rows = std::min(group.rows, int64_t(free_.size()));
    std::vector<int64_t> slots, counts;
    prefill_.first = 0;
    prefill_.tokens = at::zeros({rows, group.time}, at::kLong);
    for (int64_t row = 0; row < rows; ++row) {
        const auto tokens = prompts_[waiting_.back()].tokens;
        prefill_.sequences.push_back(std::make_shared<Sequence>(Sequence{waiting_.back(), free_.back(), 0, false, {}}));
        std::ranges::copy(tokens, prefill_.tokens.data_ptr<int64_t>() + row * group.time);
        counts.push_back(int64_t(tokens.size()));
        slots.push_back(free_.back());
        waiting_.pop_back();
        free_.pop_back();
    }
    const auto to_device = [&](const std::vector<int64_t>& values) {
        return on_device(at::tensor(values, at::kLong), decoder_.model().device());
    };
    const bool padded = std::ranges::any_of(counts, [&](int64_t count) { return count != group.time; });
    prefill_.slots = to_device(slots);
    prefill_.counts = padded ? to_device(counts) : at::Tensor();
}

void GenerationEngine::prefill_pass() {
    const int64_t rows = prefill_.tokens.size(0), length = prefill_.tokens.size(1), first = prefill_.first;
    const int64_t time = std::min(length - first, std::max<int64_t>(1, limits_.chunk_tokens / rows));
    const at::Tensor chosen = decoder_.prefill(prefill_.tokens.narrow(1, first, time).contiguous(), prefill_.slots,
                                               first, length, prefill_.counts);
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
            sequence->done =
                int64_t(sequence->tokens.size()) == prompt.count ||
                std::binary_search(prompt.stops.begin(), prompt.stops.end(), sequence->tokens.back()) ||
                (prompt.stop_strings && prompt.stop_strings->end_with(sequence->tokens.back(), sequence->end));
            if (!sequence->done) continue;
            leave(sequence);
            finished(sequence->prompt, std::move(sequence->tokens));
        }
    }
}

void generate(const CausalLM& model, std::span<const Prompt> prompts, const GenerationEngine::Finished& finished,
              const EngineLimits& limits, const std::function<bool()>& stop) {
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
        EngineLimits own_limits = with_defaults(limits, model);
        own_limits.slots = std::clamp<int64_t>(int64_t(own.size()), 1, own_limits.slots);
        const auto of_own = [&](size_t i, std::vector<int32_t> tokens) { finished(members[i], std::move(tokens)); };
        GenerationEngine(model, capacity, own_limits).generate(own, of_own, stop);
        if (stop && stop()) next = order.size();  // no cache is made for prompts that are left out
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
