// SPDX-License-Identifier: Apache-2.0
// The order of training sequences: a keyed permutation of the sequences of a token file, a new one each epoch. One
// global cursor says where a run is, whatever the number of ranks. What the cursor stands at depends on nothing else.
#pragma once

#include <ATen/core/Tensor.h>

#include "job/job.h"
#include "storage/token_file.h"
#include "system/random.h"

namespace amalgam {

class Batches {
  public:
    /// `stage` separates the orders of stages. `plan`: its sequence_length and repeat_fraction count. Throws
    /// Error(bad_input) if the file holds less than one sequence.
    Batches(const TokenFile& file, const TrainingJob& plan, uint64_t seed, const std::string& stage);

    /// Sequences [cursor, cursor + count) of the endless order, int64 [count, sequence_length] on the CPU.
    at::Tensor sequences(int64_t cursor, int64_t count) const;
    int64_t sequence_length() const { return length_; }

  private:
    const TokenFile& file_;
    int64_t length_, sequences_;
    double repeat_fraction_;
    RandomStream repeats_;
    uint64_t key_;
};

/// Sequences [first, first + count) of the file in their own order: for held-out measurements.
at::Tensor read_sequences(const TokenFile& file, int64_t sequence_length, int64_t first, int64_t count);

}  // namespace amalgam
