// SPDX-License-Identifier: Apache-2.0
#include "evaluation/generation.h"

#include <ATen/ATen.h>

namespace amalgam {

at::Tensor generate_greedily(const CausalLM& model, const at::Tensor& prompt, int64_t count, int64_t stop) {
    const at::NoGradGuard no_grad;
    ModelCache cache = model.make_cache(prompt.size(0));
    at::Tensor input = prompt.to(model.device());
    at::Tensor done = at::zeros({prompt.size(0)}, input.options().dtype(at::kBool));
    std::vector<at::Tensor> produced;
    for (int64_t i = 0; i < count; ++i) {
        const WeightsHold head(model.weights_on_demand(), WeightsOnDemand::outside_blocks);
        const at::Tensor hidden = model.hidden(input, &cache);
        const at::Tensor last = hidden.narrow(1, hidden.size(1) - 1, 1);
        at::Tensor next = at::linear(last, model.head().compute).to(at::kFloat).argmax(-1);  // [batch, 1]
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

}  // namespace amalgam
