// SPDX-License-Identifier: Apache-2.0
#include "mixers/documents.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "mixers/first_values.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

/// After so many e-folds less is left of a state than its rounding, in fp64 too. Far deeper decays would take digits
/// from those of the tokens beside them, where these are added up.
constexpr double forgotten = 40.0;

constexpr int64_t reach = short_convolution_taps - 1;  // tokens that a convolution looks back

}  // namespace

Documents::Documents(const Borders& borders, int64_t length, at::Device device) {
    std::vector<int64_t> starts, first_tokens, filled, filled_tokens;
    at::Tensor begins = at::zeros({int64_t(borders.size()), length}, at::kBool);
    for (size_t s = 0; s < borders.size(); ++s) {
        const int64_t sequence = int64_t(s) * length;
        int64_t first = 0;
        const auto end_at = [&](int64_t end) {
            starts.push_back(sequence + first);
            lengths_.push_back(end - first);
            first = end;
        };
        for (const int64_t border : borders[s]) {
            end_at(border);
            begins.data_ptr<bool>()[sequence + border] = true;
        }
        end_at(length);
    }
    for (size_t d = 0; d < starts.size(); ++d) {
        if (starts[d] % length == 0) continue;
        for (int64_t i = 0; i < reach; ++i) {
            const int64_t token = starts[d] + std::min(i, lengths_[d] - 1);
            if (i < lengths_[d]) {
                filled.push_back(int64_t(first_tokens.size()));
                filled_tokens.push_back(token);
            }
            first_tokens.push_back(token);
        }
    }
    starts.push_back(int64_t(borders.size()) * length);
    const auto on_device = [&](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong).to(device); };
    starts_ = on_device(starts);
    begins_ = begins.to(device);
    first_tokens_ = on_device(first_tokens);
    filled_ = on_device(filled);
    filled_tokens_ = on_device(filled_tokens);
}

int64_t Documents::longest() const {
    return *std::max_element(lengths_.begin(), lengths_.end());
}

at::Tensor Documents::ends() const {
    return starts_.narrow(0, 1, count()) - 1;
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
