// SPDX-License-Identifier: Apache-2.0
// A rank's piece of a tensor that is known to all ranks by name. Checkpoints are written from pieces and read into
// them, whatever the number of ranks and however the tensors are cut.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace amalgam {

/// Elements [first, first + values.numel()) of a tensor in row-major order. No elements: this rank has none of it.
struct TensorPiece {
    std::string name;  // its place in a checkpoint: /model/NAME, /optimizer/exp_avg/NAME, /optimizer/exp_avg_sq/NAME
    std::vector<int64_t> shape;  // of the whole tensor
    int64_t first = 0;
    at::Tensor values;  // fp32 [elements], contiguous
};

/// Elements of the whole tensor.
int64_t whole_elements(const TensorPiece& piece);

/// All of a contiguous fp32 tensor; `values` is a view of it.
TensorPiece whole_tensor(std::string name, const at::Tensor& tensor);

/// How whole tensors that every rank has are cut evenly: laid one behind the other they make `ranks` equal runs of
/// elements, and a rank's piece of a tensor is what its run has of it. Cuts within a tensor fall on multiples of 1024
/// elements, so that ranks share no page of a file.
class EvenCuts {
  public:
    EvenCuts(const std::vector<TensorPiece>& whole, int64_t ranks);
    struct Piece {
        int64_t first, end;
    };
    /// The piece of tensor number `tensor` that is in the run of `rank`.
    Piece of(size_t tensor, int64_t rank) const;

  private:
    std::vector<int64_t> starts_;  // of the tensors in the row of all, and the end
    int64_t ranks_;
};

/// The pieces of `rank`, one of each tensor. The values are views.
std::vector<TensorPiece> even_pieces(const std::vector<TensorPiece>& whole, int64_t rank, int64_t ranks);

}  // namespace amalgam
