// SPDX-License-Identifier: Apache-2.0
// How sequences are spread over the ranks of a group: whole ones, or a piece of each on consecutive ranks that share it
// (context_group.h). Training, evaluation and scoring deal out their work by it, and add up what ranks found in their
// pieces.
#pragma once

#include <span>
#include <vector>

#include "comm/communicator.h"
#include "mixers/context_group.h"

namespace amalgam {

struct SequenceRanks {
    /// `context`: of the ranks that share sequences with this one; they are consecutive in `group`, whose size is a
    /// multiple of their number. Null: each rank has whole sequences. Both must outlive this.
    SequenceRanks(const Communicator& of, ContextGroup* shared = nullptr) : group(of), context(shared) {}

    int64_t pieces() const { return context ? context->ranks() : 1; }
    int64_t piece() const { return context ? context->rank() : 0; }
    /// Ranks, or groups of ranks that share sequences, and which of them this rank is, or belongs to.
    int64_t sharers() const { return group.size() / pieces(); }
    int64_t sharer() const { return group.rank() / pieces(); }

    const Communicator& group;
    ContextGroup* context;
};

/// Sums over the tokens of items (sequences, questions, micro-batches), each of which is at one sharer. The pieces of
/// an item are added in their order, so that the bits depend on the number of pieces and on nothing else.
class SumsOfPieces {
  public:
    /// `width` sums of each item.
    SumsOfPieces(int64_t items, int64_t width, const SequenceRanks& ranks);

    /// This rank's part of the sums of an item, zero at first.
    std::span<double> of(int64_t item);
    /// Row-major [items, width], on all ranks. Collective over the group. Once.
    std::vector<double> total();

  private:
    const SequenceRanks ranks_;
    int64_t width_;
    std::vector<double> parts_;  // [items, pieces, width]
};

}  // namespace amalgam
