// SPDX-License-Identifier: Apache-2.0
#include "training/packed_order.h"

#include <algorithm>

#include "system/error.h"
#include "system/random.h"

namespace amalgam {
namespace {

constexpr int64_t most_documents = 1 << 20;  // about, in a window: some ten megabytes and about a second

}  // namespace

PackedOrder::PackedOrder(const TokenFile& file, int64_t length, uint64_t seed, const std::string& stage,
                         int64_t window_sequences)
    : file_(file),
      length_(length),
      groups_(file.document_groups()),
      windows_(std::clamp<int64_t>(
          std::max(file.sequences(length) / window_sequences, file.documents() / most_documents), 1, groups_)),
      key_(RandomStream(seed, stage).bits(0)),
      key_of_windows_(RandomStream(seed, stage + " windows").bits(0)),
      epoch_(make_epoch(0, 0)) {}

std::span<const TokenRange> PackedOrder::pieces(int64_t sequence) {
    enter(sequence);
    const int64_t place = sequence - window_.first_sequence, size = window_.end - window_.first_sequence;
    const auto packed = int64_t(Permutation(uint64_t(size), window_.key).image(uint64_t(place)));
    const std::span<const TokenRange> all = window_.packed.pieces;
    const int64_t* const start = window_.packed.starts.data() + packed;
    return all.subspan(size_t(start[0]), size_t(start[1] - start[0]));
}

const PackingCounts& PackedOrder::counts(int64_t sequence) {
    enter(sequence);
    return window_.packed.counts;
}

PackedOrder::Epoch PackedOrder::make_epoch(int64_t number, int64_t first_sequence) const {
    Epoch epoch{number, first_sequence, {}};
    int64_t sequences = 0;
    for (int64_t window = 0; window < windows_; ++window) {
        int64_t tokens = 0;
        for (int64_t place = first_group(window); place < first_group(window + 1); ++place) {
            const int64_t of_epoch = group(number, place);
            tokens += file_.group_start(of_epoch + 1) - file_.group_start(of_epoch);
        }
        sequences += tokens / length_;
        epoch.ends.push_back(sequences);
    }
    require(sequences > 0, "data.training: no part of ", groups_ / windows_ * DocumentIndex::distance,
            " documents fills a sequence of ", length_,
            " tokens (nothing could be packed) use shorter sequences, or data.packing: none");
    return epoch;
}

/// The group of documents that stands at that place of the epoch's order.
int64_t PackedOrder::group(int64_t epoch, int64_t place) const {
    return int64_t(Permutation(uint64_t(groups_), key_ + uint64_t(epoch)).image(uint64_t(place)));
}

void PackedOrder::enter(int64_t sequence) {
    if (sequence >= window_.first_sequence && sequence < window_.end) return;
    // How many sequences an epoch has depends on its windows, so that epochs are counted from the first.
    if (sequence < epoch_.first_sequence) epoch_ = make_epoch(0, 0);
    while (sequence >= epoch_.first_sequence + epoch_.ends.back())
        epoch_ = make_epoch(epoch_.number + 1, epoch_.first_sequence + epoch_.ends.back());
    const auto end = std::upper_bound(epoch_.ends.begin(), epoch_.ends.end(), sequence - epoch_.first_sequence);
    window_ = pack(end - epoch_.ends.begin());
}

PackedOrder::Window PackedOrder::pack(int64_t window) const {
    std::vector<TokenRange> documents;
    for (int64_t place = first_group(window); place < first_group(window + 1); ++place) {
        const std::vector<int64_t> offsets = file_.group_offsets(group(epoch_.number, place));
        for (size_t d = 0; d + 1 < offsets.size(); ++d)
            if (offsets[d + 1] > offsets[d]) documents.push_back({offsets[d], offsets[d + 1] - offsets[d]});
    }
    Window result;
    result.first_sequence = epoch_.first_sequence + (window > 0 ? epoch_.ends[size_t(window - 1)] : 0);
    result.end = epoch_.first_sequence + epoch_.ends[size_t(window)];
    result.key = key_of_windows_ + uint64_t(epoch_.number * windows_ + window);
    // Documents of one length meet others in the next epoch.
    const Permutation order(documents.size(), result.key);
    std::vector<TokenRange> shuffled(documents.size());
    for (size_t d = 0; d < documents.size(); ++d) shuffled[d] = documents[order.image(d)];
    result.packed = pack_best_fit(shuffled, length_);
    return result;
}

}  // namespace amalgam
