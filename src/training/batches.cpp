// SPDX-License-Identifier: Apache-2.0
#include "training/batches.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "system/error.h"
#include "training/repeated_passages.h"

namespace amalgam {

Batches::Batches(const TokenFile& file, const TrainingJob& job, uint64_t seed, const std::string& stage,
                 DocumentBorders documents, const RecallWording& wording, DocumentPacking packing)
    : file_(file),
      plan_(job),
      blocks_(file.sequences(plan_.block_length())),
      repeat_fraction_(job.repeat_fraction),
      documents_(documents),
      repeats_(seed, stage + " repeats"),
      key_(RandomStream(seed, stage).bits(0)),
      key_of_parts_(RandomStream(seed, stage + " parts").bits(0)) {
    require(blocks_ > 0, "data.training: the token file holds ", file.size(), " tokens (less than one sequence of ",
            plan_.block_length(), ")");
    if (job.question_fraction > 0.0) questions_.emplace(job, wording, file, seed, stage);
    if (packing == DocumentPacking::best_fit) packed_.emplace(file, plan_.block_length(), seed, stage);
}

at::Tensor Batches::sequences(int64_t cursor, int64_t count) const {
    const PlannedPhase& phase = plan_.phase_of_sequence(cursor);
    const int64_t length = phase.sequence_length;
    at::Tensor tokens = at::empty({count, length}, at::kLong);
    // What a sequence repeats it has read in the same text.
    const Borders found = repeat_fraction_ > 0.0 ? borders(cursor, count) : Borders();
    for (int64_t i = 0; i < count; ++i) {
        const std::span<int64_t> row(tokens.data_ptr<int64_t>() + i * length, size_t(length));
        if (is_questions(cursor + i)) {
            std::ranges::copy(questions_->make(cursor + i, length).tokens, row.begin());
            continue;
        }
        int64_t read = 0;
        for (const TokenRange& piece : pieces(phase, cursor + i)) {
            file_.read(piece.first, row.subspan(size_t(read), size_t(piece.count)));
            read += piece.count;
        }
        repeat_passages(row, found.empty() ? std::vector<int64_t>() : found[size_t(i)], repeat_fraction_, repeats_,
                        uint64_t(cursor + i));
    }
    return tokens;
}

bool Batches::is_questions(int64_t sequence) const {
    return questions_ && questions_->has(sequence);
}

Borders Batches::borders(int64_t cursor, int64_t count) const {
    Borders found;
    if (documents_ == DocumentBorders::joined) return found;
    const PlannedPhase& phase = plan_.phase_of_sequence(cursor);
    for (int64_t i = 0; i < count; ++i)
        found.push_back(is_questions(cursor + i) ? std::vector<int64_t>() : borders_in(phase, cursor + i));
    return found;
}

std::vector<int64_t> Batches::borders_in(const PlannedPhase& phase, int64_t sequence) const {
    if (!packed_) return file_.borders(first_token(phase, sequence), phase.sequence_length);
    std::vector<int64_t> ends;
    for (const TokenRange& piece : packed_->pieces(sequence))
        ends.push_back((ends.empty() ? 0 : ends.back()) + piece.count);
    ends.pop_back();
    return ends;
}

int64_t Batches::texts(int64_t cursor, int64_t count) const {
    int64_t all = count;
    for (const auto& of_sequence : borders(cursor, count)) all += int64_t(of_sequence.size());
    return all;
}

std::string Batches::packing_in_words() const {
    if (!packed_) return "";
    const PackingCounts& counts = packed_->counts(0);
    return text("documents packed by best fit, of the first ", counts.documents, ": ", counts.longer,
                " are longer than a sequence; of the others, and of what the longer ones leave over, ", counts.cut,
                " are cut, with ", std::round(1000.0 * double(counts.cut_tokens) / double(counts.tokens)) / 10.0,
                " % of the tokens");
}

std::vector<TokenRange> Batches::pieces(const PlannedPhase& phase, int64_t sequence) const {
    if (!packed_) return {{first_token(phase, sequence), phase.sequence_length}};
    const auto packed = packed_->pieces(sequence);
    return {packed.begin(), packed.end()};
}

int64_t Batches::first_token(const PlannedPhase& phase, int64_t sequence) const {
    // Parts are counted through all blocks of all epochs.
    const int64_t first_part = phase.first_block * phase.parts, of_epoch = blocks_ * phase.parts;
    int64_t part = first_part + sequence - phase.first_sequence;
    const int64_t epoch = part / of_epoch;
    if (phase.parts > 1) {
        const int64_t begin = std::max(first_part, epoch * of_epoch);
        int64_t end = (epoch + 1) * of_epoch;
        if (&phase != &plan_.phases().back()) end = std::min(end, first_part + phase.blocks * phase.parts);
        const Permutation order(uint64_t(end - begin), key_of_parts_ + uint64_t(begin));
        part = begin + int64_t(order.image(uint64_t(part - begin)));
    }
    const int64_t index = part / phase.parts % blocks_;
    const int64_t block = int64_t(Permutation(uint64_t(blocks_), key_ + uint64_t(epoch)).image(uint64_t(index)));
    return block * plan_.block_length() + part % phase.parts * phase.sequence_length;
}

at::Tensor read_sequences(const TokenFile& file, int64_t sequence_length, int64_t first, int64_t count) {
    at::Tensor tokens = at::empty({count, sequence_length}, at::kLong);
    file.read(first * sequence_length, {tokens.data_ptr<int64_t>(), size_t(tokens.numel())});
    return tokens;
}

Borders read_borders(const TokenFile& file, int64_t sequence_length, int64_t first, int64_t count) {
    Borders found;
    for (int64_t s = first; s < first + count; ++s) found.push_back(file.borders(s * sequence_length, sequence_length));
    return found;
}

}  // namespace amalgam
