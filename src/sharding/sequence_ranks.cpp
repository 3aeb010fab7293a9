// SPDX-License-Identifier: Apache-2.0
#include "sharding/sequence_ranks.h"

namespace amalgam {

SumsOfPieces::SumsOfPieces(int64_t items, int64_t width, const SequenceRanks& ranks)
    : ranks_(ranks), width_(width), parts_(size_t(items * ranks.pieces() * width), 0.0) {}

std::span<double> SumsOfPieces::of(int64_t item) {
    return {parts_.data() + (item * ranks_.pieces() + ranks_.piece()) * width_, size_t(width_)};
}

std::vector<double> SumsOfPieces::total() {
    ranks_.group.sum_in_place(std::span<double>(parts_));  // every entry is nonzero on one rank only: exact
    if (ranks_.pieces() == 1) return std::move(parts_);
    const int64_t of_item = ranks_.pieces() * width_, items = int64_t(parts_.size()) / of_item;
    std::vector<double> sums(size_t(items * width_), 0.0);
    for (int64_t item = 0; item < items; ++item)
        for (int64_t i = 0; i < of_item; ++i)
            sums[size_t(item * width_ + i % width_)] += parts_[size_t(item * of_item + i)];
    return sums;
}

}  // namespace amalgam
