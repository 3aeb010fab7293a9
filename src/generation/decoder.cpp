// SPDX-License-Identifier: Apache-2.0
#include "generation/decoder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "operations/few_rows_map.h"
#include "operations/products.h"

namespace amalgam {
namespace {

/// Graphs are recorded for few numbers of rows only: powers of two, multiples of 8 up to 64, then four to a doubling.
int64_t rounded_batch(int64_t rows, int64_t slots) {
    int64_t power = 1;
    while (power < rows) power *= 2;
    const int64_t step = rows > 64 ? power / 8 : std::min<int64_t>(power, 8);
    return std::min((rows + step - 1) / step * step, slots);
}

/// Row counts[i] - 1 of x[i].
at::Tensor last_of_each(const at::Tensor& x, const at::Tensor& counts) {
    return x.gather(1, (counts - 1).view({-1, 1, 1}).expand({-1, 1, x.size(2)})).squeeze(1);
}

}  // namespace

Decoder::Decoder(const CausalLM& model, const CacheSize& size)
    : model_(model), cache_(model.make_cache(size)), graphs_(StepGraphs::take(model)) {
    const at::TensorOptions options(model.device());
    next_ = at::zeros({size.slots + 1}, options.dtype(at::kLong));
    lengths_ = at::zeros({size.slots + 1}, options.dtype(at::kInt));
    rows_ = at::zeros({size.slots}, options.dtype(at::kLong));
    slots_ = at::zeros({size.slots}, options.dtype(at::kInt));
}

at::Tensor Decoder::choose(const at::Tensor& hidden, const at::Tensor& head) const {
    return linear_map(hidden, head).argmax(-1);
}

at::Tensor Decoder::prefill(const at::Tensor& tokens, const at::Tensor& slots, int64_t first, int64_t length,
                            const at::Tensor& counts) {
    const HeldOuterWeights outer(model_);
    const int64_t time = tokens.size(1);
    const at::Tensor hidden =
        model_.hidden(on_device(tokens, model_.device()), cache_, CacheChunk{slots, first, counts}, length);
    if (first + time < length) return {};
    const at::Tensor best =
        choose(counts.defined() ? last_of_each(hidden, counts) : hidden.select(1, time - 1), outer.head());
    next_.index_copy_(0, slots, best);
    if (counts.defined())
        lengths_.index_copy_(0, slots, counts.to(at::kInt));
    else
        lengths_.index_fill_(0, slots, length);
    return best;
}

void Decoder::lay_out(std::span<const int64_t> slots) {
    const auto count = int64_t(slots.size());
    batch_ = graphs_.enabled() ? rounded_batch(count, size().slots) : count;
    std::vector<int64_t> rows(size_t(batch_), size().slots);
    std::vector<int32_t> of_rows(size_t(batch_), -1);
    std::ranges::copy(slots, rows.begin());
    std::ranges::transform(slots, of_rows.begin(), [](int64_t slot) { return int32_t(slot); });
    rows_.narrow(0, 0, batch_).copy_(on_device(at::tensor(rows, at::kLong), model_.device()));
    slots_.narrow(0, 0, batch_).copy_(on_device(at::tensor(of_rows, at::kInt), model_.device()));
}

at::Tensor Decoder::compute_step(const at::Tensor& rows, const at::Tensor& slots) {
    const FewRowsAtATime few_rows(!model_.weights_on_demand());
    const HeldOuterWeights outer(model_);
    const at::Tensor lengths = lengths_.index_select(0, rows);
    const at::Tensor hidden = model_.hidden(next_.index_select(0, rows), cache_, CacheStep{slots, lengths});
    const at::Tensor best = choose(hidden, outer.head());
    next_.index_copy_(0, rows, best);
    lengths_.index_copy_(0, rows, lengths + slots.ge(0));
    return best;
}

at::Tensor Decoder::step() {
    const at::Tensor rows = rows_.narrow(0, 0, batch_), slots = slots_.narrow(0, 0, batch_);
    return graphs_.run(batch_, [&] { return compute_step(rows, slots); });
}

void Decoder::empty_pass() {
    const HeldOuterWeights outer(model_);
    model_.hidden(at::empty({0, 1}, at::TensorOptions(model_.device()).dtype(at::kLong)));
}

void Decoder::repeat_first_slot(int64_t length) {
    const auto slot = [&](int64_t i) { return at::full({1}, i, next_.options()); };
    for (int64_t i = 1; i < size().slots; ++i) cache_.copy(slot(0), slot(i), length);
    lengths_.narrow(0, 0, size().slots).fill_(length);
}

}  // namespace amalgam
