// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/tensor_piece.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {
namespace {

constexpr int64_t cut_elements = 1024;  // a page of 4 KiB

}  // namespace

int64_t whole_elements(const TensorPiece& piece) {
    int64_t count = 1;
    for (int64_t extent : piece.shape) count *= extent;
    return count;
}

TensorPiece whole_tensor(std::string name, const at::Tensor& tensor) {
    return {std::move(name), tensor.sizes().vec(), 0, tensor.detach().view({-1})};
}

EvenCuts::EvenCuts(const std::vector<TensorPiece>& whole, int64_t ranks) : starts_({0}), ranks_(ranks) {
    for (const TensorPiece& piece : whole) starts_.push_back(starts_.back() + whole_elements(piece));
}

EvenCuts::Piece EvenCuts::of(size_t tensor, int64_t rank) const {
    const int64_t start = starts_[tensor], elements = starts_[tensor + 1] - start, total = starts_.back();
    const auto cut = [&](int64_t r) {  // before rank r; not total * r, which may exceed int64
        const int64_t place = total / ranks_ * r + std::min(r, total % ranks_);
        const int64_t within = std::clamp(place - start, int64_t{0}, elements);
        return within == elements ? elements : within / cut_elements * cut_elements;
    };
    return {cut(rank), cut(rank + 1)};
}

std::vector<TensorPiece> even_pieces(const std::vector<TensorPiece>& whole, int64_t rank, int64_t ranks) {
    const EvenCuts cuts(whole, ranks);
    std::vector<TensorPiece> pieces;
    for (size_t i = 0; i < whole.size(); ++i) {
        const auto [first, end] = cuts.of(i, rank);
        pieces.push_back({whole[i].name, whole[i].shape, first, whole[i].values.narrow(0, first, end - first)});
    }
    return pieces;
}

}  // namespace amalgam
