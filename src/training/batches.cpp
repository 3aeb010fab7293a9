// SPDX-License-Identifier: Apache-2.0
#include "training/batches.h"

#include <ATen/ATen.h>

#include "system/error.h"
#include "training/repeated_passages.h"

namespace amalgam {

Batches::Batches(const TokenFile& file, const TrainingJob& plan, uint64_t seed, const std::string& stage)
    : file_(file),
      length_(plan.sequence_length),
      sequences_(file.sequences(length_)),
      repeat_fraction_(plan.repeat_fraction),
      repeats_(seed, stage + " repeats"),
      key_(RandomStream(seed, stage).bits(0)) {
    require(sequences_ > 0, "data.training: the token file holds ", file.size(), " tokens (less than one sequence of ",
            length_, ")");
}

at::Tensor Batches::sequences(int64_t cursor, int64_t count) const {
    at::Tensor tokens = at::empty({count, length_}, at::kLong);
    for (int64_t i = 0; i < count; ++i) {
        const int64_t epoch = (cursor + i) / sequences_, index = (cursor + i) % sequences_;
        const int64_t sequence =
            int64_t(Permutation(uint64_t(sequences_), key_ + uint64_t(epoch)).image(uint64_t(index)));
        const std::span<int64_t> row(tokens.data_ptr<int64_t>() + i * length_, size_t(length_));
        file_.read(sequence * length_, row);
        repeat_passages(row, repeat_fraction_, repeats_, uint64_t(cursor + i));
    }
    return tokens;
}

at::Tensor read_sequences(const TokenFile& file, int64_t sequence_length, int64_t first, int64_t count) {
    at::Tensor tokens = at::empty({count, sequence_length}, at::kLong);
    file.read(first * sequence_length, {tokens.data_ptr<int64_t>(), size_t(tokens.numel())});
    return tokens;
}

}  // namespace amalgam
