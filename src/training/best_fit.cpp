// SPDX-License-Identifier: Apache-2.0
#include "training/best_fit.h"

#include <algorithm>
#include <map>

namespace amalgam {
namespace {

struct Sequence {
    int64_t room = 0;  // tokens
    std::vector<TokenRange> pieces;

    void add(const TokenRange& piece) {
        pieces.push_back(piece);
        room -= piece.count;
    }
};

class Packer {
  public:
    Packer(const std::vector<TokenRange>& documents, int64_t length) : length_(length) {
        counts_.documents = int64_t(documents.size());
        std::vector<TokenRange> texts;
        for (TokenRange text : documents) {
            counts_.tokens += text.count;
            if (text.count > length) ++counts_.longer;
            for (; text.count >= length; text = {text.first + length, text.count - length})
                sequences_.push_back({0, {{text.first, length}}});
            if (text.count > 0) texts.push_back(text);
        }
        sort_by_length(texts);
        for (const TokenRange& text : texts) put_where_it_fits_best(text);
        fill_room();
    }

    PackedSequences result() const {
        PackedSequences result{{}, {0}, counts_};
        for (const Sequence& sequence : sequences_) {
            result.pieces.insert(result.pieces.end(), sequence.pieces.begin(), sequence.pieces.end());
            result.starts.push_back(int64_t(result.pieces.size()));
        }
        return result;
    }

  private:
    static void sort_by_length(std::vector<TokenRange>& texts) {
        std::ranges::stable_sort(texts, std::greater<>(), &TokenRange::count);
    }

    void put_where_it_fits_best(const TokenRange& text) {
        size_t sequence = sequences_.size();
        if (const auto best = with_room_.lower_bound(text.count); best != with_room_.end()) {
            sequence = best->second.back();
            best->second.pop_back();
            if (best->second.empty()) with_room_.erase(best);
        } else {
            sequences_.push_back({length_, {}});
        }
        sequences_[sequence].add(text);
        if (const int64_t room = sequences_[sequence].room; room > 0) with_room_[room].push_back(sequence);
    }

    void fill_room() {
        std::ranges::stable_sort(sequences_, {}, &Sequence::room);
        const auto filled = sequences_.begin() + counts_.tokens / length_;
        std::vector<TokenRange> texts;
        for (auto given_up = filled; given_up != sequences_.end(); ++given_up)
            texts.insert(texts.end(), given_up->pieces.begin(), given_up->pieces.end());
        sequences_.erase(filled, sequences_.end());
        sort_by_length(texts);
        auto sequence = sequences_.rbegin();  // the most room first: fewer cuts
        const auto skip_full = [&] {
            while (sequence != sequences_.rend() && sequence->room == 0) ++sequence;
            return sequence == sequences_.rend();
        };
        for (const TokenRange& text : texts) {
            TokenRange left = text;
            while (left.count > 0 && !skip_full()) {
                const TokenRange piece = {left.first, std::min(left.count, sequence->room)};
                sequence->add(piece);
                left = {left.first + piece.count, left.count - piece.count};
            }
            counts_.unread += left.count;
            // What was put somewhere, but not as one piece.
            const bool is_whole = left.count == 0 && sequence->pieces.back() == text;
            if (left.count == text.count || is_whole) continue;
            ++counts_.cut;
            counts_.cut_tokens += text.count;
        }
    }

    const int64_t length_;
    PackingCounts counts_;
    std::vector<Sequence> sequences_;
    std::map<int64_t, std::vector<size_t>> with_room_;  // tokens of room -> sequences that have it
};

}  // namespace

PackedSequences pack_best_fit(const std::vector<TokenRange>& documents, int64_t length) {
    return Packer(documents, length).result();
}

}  // namespace amalgam
