// SPDX-License-Identifier: Apache-2.0
#include "mixers/documents.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "mixers/first_values.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

/// After so many e-folds less is left of a state than its rounding, in fp64 too. Far deeper decays would take digits
/// from those of the tokens beside them, where these are added up.
constexpr double forgotten = 40.0;

constexpr int64_t reach = short_convolution_taps - 1;  // tokens that a convolution looks back

at::Tensor on_device(const std::vector<int64_t>& values, at::Device device) {
    return at::tensor(values, at::kLong).to(device);
}

std::vector<int64_t> lengths_of(const Borders& borders, int64_t length) {
    std::vector<int64_t> lengths;
    for (const auto& of_sequence : borders) {
        int64_t first = 0;
        for (const int64_t border : of_sequence) {
            lengths.push_back(border - first);
            first = border;
        }
        lengths.push_back(length - first);
    }
    return lengths;
}

}  // namespace

Borders borders_within(const Borders& borders, int64_t first, int64_t end) {
    Borders found;
    for (const auto& of_sequence : borders) {
        auto& within = found.emplace_back();
        for (const int64_t border : of_sequence)
            if (border > first && border < end) within.push_back(border - first);
    }
    return found;
}

PackedTexts::PackedTexts(std::vector<int64_t> lengths, at::Device device) : lengths_(std::move(lengths)) {
    std::vector<int64_t> starts(lengths_.size() + 1, 0);
    std::partial_sum(lengths_.begin(), lengths_.end(), starts.begin() + 1);
    starts_ = on_device(starts, device);
}

int64_t PackedTexts::longest() const {
    return *std::max_element(lengths_.begin(), lengths_.end());
}

at::Tensor PackedTexts::ends() const {
    return starts_.narrow(0, 1, count()) - 1;
}

Documents::Documents(Borders borders, int64_t length, at::Device device)
    : PackedTexts(lengths_of(borders, length), device), borders_(std::move(borders)) {
    std::vector<int64_t> first_tokens, filled, filled_tokens;
    at::Tensor begins = at::zeros({int64_t(borders_.size()), length}, at::kBool);
    for (size_t s = 0; s < borders_.size(); ++s)
        for (size_t b = 0; b < borders_[s].size(); ++b) {
            const int64_t start = int64_t(s) * length + borders_[s][b],
                          count = (b + 1 < borders_[s].size() ? borders_[s][b + 1] : length) - borders_[s][b];
            begins.data_ptr<bool>()[start] = true;
            for (int64_t i = 0; i < reach; ++i) {
                const int64_t token = start + std::min(i, count - 1);
                if (i < count) {
                    filled.push_back(int64_t(first_tokens.size()));
                    filled_tokens.push_back(token);
                }
                first_tokens.push_back(token);
            }
        }
    begins_ = begins.to(device);
    first_tokens_ = on_device(first_tokens, device);
    filled_ = on_device(filled, device);
    filled_tokens_ = on_device(filled_tokens, device);
}

at::Tensor Documents::forgetting(const at::Tensor& decays, double unit) const {
    at::Tensor where = begins_;
    while (where.dim() < decays.dim()) where = where.unsqueeze(-1);
    return decays.masked_fill(where, -forgotten * unit);
}

at::Tensor Documents::short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation) const {
    const at::Tensor y = amalgam::short_convolution(x, weight, activation, nullptr);
    if (first_tokens_.size(0) == 0) return y;
    const at::Tensor beginnings =
        x.flatten(0, 1).index_select(0, first_tokens_).unflatten(0, {first_tokens_.size(0) / reach, reach});
    const at::Tensor anew = amalgam::short_convolution(beginnings, weight, activation, nullptr).flatten(0, 1);
    return y.flatten(0, 1).index_copy(0, filled_tokens_, anew.index_select(0, filled_)).view_as(y);
}

}  // namespace amalgam
