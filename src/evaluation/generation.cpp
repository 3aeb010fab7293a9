// SPDX-License-Identifier: Apache-2.0
#include "evaluation/generation.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {
namespace {

/// The most likely token after each sequence, [batch, 1].
at::Tensor most_likely(const CausalLM& model, const at::Tensor& input, ModelCache& cache) {
    const HeldOuterWeights outer(model);
    const at::Tensor hidden = model.hidden(input, &cache), last = hidden.narrow(1, hidden.size(1) - 1, 1);
    return at::linear(last, outer.head()).to(at::kFloat).argmax(-1);
}

}  // namespace

at::Tensor generate_greedily(const CausalLM& model, const at::Tensor& prompt, int64_t count, int64_t stop) {
    const at::NoGradGuard no_grad;
    ModelCache cache = model.make_cache(prompt.size(0));
    at::Tensor input = prompt.to(model.device());
    at::Tensor done = at::zeros({prompt.size(0)}, input.options().dtype(at::kBool));
    std::vector<at::Tensor> produced;
    for (int64_t i = 0; i < count; ++i) {
        at::Tensor next = most_likely(model, input, cache);
        if (stop >= 0) {
            next = next.masked_fill(done.unsqueeze(1), stop);
            done = done.logical_or(next.squeeze(1).eq(stop));
        }
        produced.push_back(next);
        const bool finished = stop >= 0 && done.all().item<bool>();
        if (model.weights_on_demand() ? model.weights_on_demand()->everywhere(finished) : finished) break;
        input = next;
    }
    at::Tensor tokens = at::cat(produced, 1);
    if (tokens.size(1) < count) tokens = at::constant_pad_nd(tokens, {0, count - tokens.size(1)}, stop);
    return tokens.cpu();
}

std::vector<int32_t> generate_until(const CausalLM& model, std::span<const int32_t> prompt, int64_t count,
                                    std::span<const int32_t> stops) {
    const at::NoGradGuard no_grad;
    ModelCache cache = model.make_cache(1);
    at::Tensor input = at::empty({1, int64_t(prompt.size())}, at::kLong);
    std::copy(prompt.begin(), prompt.end(), input.data_ptr<int64_t>());
    input = input.to(model.device());
    std::vector<int32_t> produced;
    bool done = count == 0;
    WeightsOnDemand* weights = model.weights_on_demand();
    while (weights ? !weights->everywhere(done) : !done) {  // who is done goes on for those who need its weights
        input = most_likely(model, input, cache);
        if (done) continue;
        produced.push_back(int32_t(input.item<int64_t>()));
        done = int64_t(produced.size()) == count || std::binary_search(stops.begin(), stops.end(), produced.back());
    }
    return produced;
}

}  // namespace amalgam
