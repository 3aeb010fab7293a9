// SPDX-License-Identifier: Apache-2.0
// Checksums of whole tensors from the pieces that ranks hold. One table entry for each tensor, added up over the ranks
// in place: nothing grows with their number, and no order among them matters.
#pragma once

#include "checkpoints/tensor_piece.h"
#include "comm/communicator.h"

namespace amalgam {

class PieceChecksums {
  public:
    explicit PieceChecksums(size_t tensors) : checksums_(tensors, 0), elements_(tensors, 0) {}

    /// `checksum`: CRC-32 of the bytes of `piece`, of tensor number `tensor`.
    void add(size_t tensor, const TensorPiece& piece, uint32_t checksum);
    /// Over the ranks of `group`. Collective.
    void reduce(const Communicator& group);

    /// CRC-32 of the whole tensor if its pieces cover it.
    uint32_t of(size_t tensor) const { return checksums_[tensor]; }
    /// Elements of all its pieces together.
    int64_t elements(size_t tensor) const { return elements_[tensor]; }

  private:
    std::vector<uint32_t> checksums_;
    std::vector<int64_t> elements_;
};

}  // namespace amalgam
