// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/piece_checksums.h"

#include "storage/checksum.h"

namespace amalgam {

void PieceChecksums::add(size_t tensor, const TensorPiece& piece, uint32_t checksum) {
    const int64_t count = piece.values.numel();
    const int64_t after = whole_elements(piece) - piece.first - count;
    if (count > 0) checksums_[tensor] ^= crc32_in_place(checksum, after * int64_t(sizeof(float)));
    elements_[tensor] += count;
}

void PieceChecksums::reduce(const Communicator& group) {
    if (group.size() == 1) return;
    const int tensors = int(checksums_.size());
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, checksums_.data(), tensors, MPI_UINT32_T, MPI_BXOR, group.get()),
              "MPI_Allreduce");
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, elements_.data(), tensors, MPI_INT64_T, MPI_SUM, group.get()),
              "MPI_Allreduce");
}

}  // namespace amalgam
