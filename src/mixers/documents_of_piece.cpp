// SPDX-License-Identifier: Apache-2.0
#include "mixers/documents_of_piece.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "mixers/sequence_pieces.h"

namespace amalgam {
namespace {

/// Of a piece and so many tokens before it.
Documents documents_within(const Borders& borders, const SequencePiece& piece, int64_t before, at::Device device) {
    return {borders_within(borders, piece.first - before, piece.end()), before + piece.count, device};
}

/// Where the document of `token` begins, of a sequence with these borders.
int64_t beginning_of(int64_t token, const std::vector<int64_t>& borders) {
    const auto next = std::upper_bound(borders.begin(), borders.end(), token);
    return next == borders.begin() ? 0 : *(next - 1);
}

}  // namespace

DocumentsOfPiece::DocumentsOfPiece(const Borders& borders, int64_t length, int64_t ranks, int64_t rank,
                                   at::Device device)
    : own_(documents_within(borders, sequence_piece(length, ranks, rank), 0, device)),
      convolved_(documents_within(borders, sequence_piece(length, ranks, rank), shortest_piece, device)) {
    const int64_t begin = sequence_piece(length, ranks, rank).first;
    std::vector<int64_t> last;
    at::Tensor begins_anew = at::empty({int64_t(borders.size())}, at::kBool);
    for (size_t s = 0; s < borders.size(); ++s) {
        first_.push_back(s == 0 ? 0 : last.back() + 1);
        last.push_back(first_.back() + int64_t(own_.borders()[s].size()));
        before_.push_back(begin - beginning_of(begin, borders[s]));
        begins_anew.data_ptr<bool>()[s] = before_.back() == 0;
    }
    for (int64_t r = 0; r < ranks; ++r) {
        int64_t& beginning = beginnings_.emplace_back(length);
        for (const auto& of_sequence : borders)
            beginning = std::min(beginning, beginning_of(sequence_piece(length, ranks, r).first, of_sequence));
    }
    begins_anew_ = begins_anew.to(device);
    first_documents_ = at::tensor(first_, at::kLong).to(device);
    last_documents_ = at::tensor(last, at::kLong).to(device);
}

at::Tensor DocumentsOfPiece::continued(const at::Tensor& states) const {
    at::Tensor where = begins_anew_;
    while (where.dim() < states.dim()) where = where.unsqueeze(-1);
    return states.masked_fill(where, 0.0);
}

at::Tensor DocumentsOfPiece::entering(const at::Tensor& continued) const {
    auto sizes = continued.sizes().vec();
    sizes[0] = own_.count();
    return at::zeros(sizes, continued.options()).index_copy(0, first_documents_, continued);
}

at::Tensor DocumentsOfPiece::leaving(const at::Tensor& states) const {
    return states.index_select(0, last_documents_);
}

}  // namespace amalgam
