// SPDX-License-Identifier: Apache-2.0
#include "optimizer/exact_norm.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace amalgam {
namespace {

constexpr int digits = 4;
constexpr double digit_base = 1048576.0;          // 2^20: a word holds the sum of 2^39 digits
constexpr int64_t piece_size = int64_t{1} << 18;  // temporaries in fp64 stay small

}  // namespace

void ExactNorm::add(const at::Tensor& values) {
    const at::Tensor flat = values.flatten();
    for (int64_t first = 0; first < flat.numel(); first += piece_size) {
        const at::Tensor piece = flat.narrow(0, first, std::min(piece_size, flat.numel() - first));
        const at::Tensor finite = piece.isfinite();
        at::Tensor rest = piece.to(at::kDouble).square().masked_fill(finite.logical_not(), 0.0);
        std::vector<at::Tensor> sums;
        for (int d = 0; d < digits; ++d) {
            const at::Tensor digit = rest.floor();
            sums.push_back(digit.to(at::kLong).sum());
            rest = (rest - digit).mul_(digit_base);
        }
        sums.push_back(finite.logical_not().sum());
        const at::Tensor host = at::stack(sums).cpu();
        for (size_t w = 0; w < words_.size(); ++w) words_[w] += host.const_data_ptr<int64_t>()[w];
    }
}

void ExactNorm::reduce(TensorCollectives& group, at::Device device) {
    at::Tensor words = at::from_blob(words_.data(), {int64_t(words_.size())}, at::kLong).to(device).clone();
    group.all_reduce(words);
    words = words.cpu();
    std::copy_n(words.const_data_ptr<int64_t>(), words_.size(), words_.begin());
}

double ExactNorm::value() const {
    if (words_[digits] > 0) return NAN;
    double squares = 0.0;
    for (int d = digits - 1; d >= 0; --d) squares = squares / digit_base + double(words_[size_t(d)]);
    return std::sqrt(squares);
}

}  // namespace amalgam
