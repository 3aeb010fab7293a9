// SPDX-License-Identifier: Apache-2.0
// The order of training sequences that documents are packed into (data.packing: best_fit). In each epoch the documents
// come anew, in small groups of neighbours, in a random order, and are packed by themselves in each of equal parts of
// this order, windows of some thousand sequences. Windows are read one after another, the sequences of each in a random
// order. So a window is a sample of the whole file, however that is sorted, and one is in memory at a time.
//
// Every document is read once in an epoch, but for fewer tokens than a sequence at the end of each window.
#pragma once

#include <span>
#include <string>

#include "storage/token_file.h"
#include "training/best_fit.h"

namespace amalgam {

class PackedOrder {
  public:
    /// `stage` separates the orders of stages. `window_sequences`: about so many. Throws Error(bad_input) if no window
    /// of an epoch fills one sequence.
    PackedOrder(const TokenFile& file, int64_t length, uint64_t seed, const std::string& stage,
                int64_t window_sequences = 4096);

    /// What stands in the sequence of this number of the endless order: `length` tokens, different texts. Valid until
    /// the next call. Numbers may come in any order; a window is packed again when it is left and entered.
    std::span<const TokenRange> pieces(int64_t sequence);
    /// Of the window that holds this sequence.
    const PackingCounts& counts(int64_t sequence);

  private:
    struct Epoch {
        int64_t number = 0, first_sequence = 0;
        std::vector<int64_t> ends;  // of windows, sequences from the epoch's first
    };
    struct Window {
        int64_t first_sequence = 0, end = 0;
        uint64_t key = 0;
        PackedSequences packed;
    };

    Epoch make_epoch(int64_t number, int64_t first_sequence) const;
    int64_t group(int64_t epoch, int64_t place) const;
    int64_t first_group(int64_t window) const { return groups_ * window / windows_; }
    void enter(int64_t sequence);
    Window pack(int64_t window) const;

    const TokenFile& file_;
    int64_t length_, groups_, windows_;
    uint64_t key_, key_of_windows_;
    Epoch epoch_;
    Window window_;
};

}  // namespace amalgam
