// SPDX-License-Identifier: Apache-2.0
#include "training/tensor_piece.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {
namespace {

constexpr int64_t cut_elements = 1024;  // a page of 4 KiB

/// A place in the row of all tensors, `start` being that of a tensor of `elements`: the place within it.
int64_t place_within(int64_t place, int64_t start, int64_t elements) {
    const int64_t within = std::clamp(place - start, int64_t{0}, elements);
    return within == elements ? elements : within / cut_elements * cut_elements;
}

}  // namespace

int64_t whole_elements(const TensorPiece& piece) {
    int64_t count = 1;
    for (int64_t extent : piece.shape) count *= extent;
    return count;
}

TensorPiece whole_tensor(std::string name, const at::Tensor& tensor) {
    return {std::move(name), tensor.sizes().vec(), 0, tensor.detach().view({-1})};
}

std::vector<TensorPiece> even_pieces(const std::vector<TensorPiece>& whole, int64_t rank, int64_t ranks) {
    int64_t total = 0, start = 0;
    for (const TensorPiece& piece : whole) total += whole_elements(piece);
    // Not total * rank: that may exceed int64.
    const auto cut = [&](int64_t r) { return total / ranks * r + std::min(r, total % ranks); };
    std::vector<TensorPiece> pieces;
    for (const TensorPiece& piece : whole) {
        const int64_t elements = whole_elements(piece);
        const int64_t first = place_within(cut(rank), start, elements),
                      end = place_within(cut(rank + 1), start, elements);
        pieces.push_back({piece.name, piece.shape, first, piece.values.narrow(0, first, end - first)});
        start += elements;
    }
    return pieces;
}

}  // namespace amalgam
