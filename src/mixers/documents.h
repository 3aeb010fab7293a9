// SPDX-License-Identifier: Apache-2.0
// Documents that lie one after another in the sequences of a batch and are kept apart: states, short convolutions and
// attention begin anew with each. A document that goes on in another sequence is another one there.
//
// Positions run on from document to document. Attention under RoPE depends on distances alone, so that a document
// computes what it would from position 0 on (with `dynamic` scaling, what it would in a context as long as the
// sequence).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace amalgam {

/// Where documents begin within each sequence, tokens from its start: ascending, each once, without 0.
using Borders = std::vector<std::vector<int64_t>>;

/// The same of tokens [first, end) of each sequence, counted from `first` on; `first` may be below 0.
Borders borders_within(const Borders& borders, int64_t first, int64_t end);

/// Texts that follow each other in one row of tokens.
class PackedTexts {
  public:
    /// The tensors lie on `device`.
    PackedTexts(std::vector<int64_t> lengths, at::Device device);

    int64_t count() const { return int64_t(lengths_.size()); }
    /// Tokens of each.
    const std::vector<int64_t>& lengths() const { return lengths_; }
    int64_t longest() const;
    /// int64 [count + 1]: where each begins, then the end of the row.
    const at::Tensor& starts() const { return starts_; }
    /// int64 [count]: the last token of each.
    at::Tensor ends() const;

  private:
    std::vector<int64_t> lengths_;
    at::Tensor starts_;
};

/// Those of all sequences, which make up the row.
class Documents : public PackedTexts {
  public:
    /// Of sequences of `length` tokens; tensors lie on `device`.
    Documents(Borders borders, int64_t length, at::Device device);

    const Borders& borders() const { return borders_; }
    /// bool [sequences, length]: the first tokens of all documents but those that begin a sequence.
    const at::Tensor& begins() const { return begins_; }

    /// Decays [sequences, length, ...] under which a recurrence forgets the document before, in place of the given
    /// ones: a state falls to exp(x / unit) of it where these are x, far below 0.
    at::Tensor forgetting(const at::Tensor& decays, double unit = 1.0) const;

    /// operations.h's short_convolution of every document by itself.
    at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation) const;

  private:
    Borders borders_;
    at::Tensor begins_;
    // A short convolution reads before its document only at the first tokens of it: those of all documents that begin
    // within a sequence, as rows of equal length, and which of them there are (a document may be shorter).
    at::Tensor first_tokens_, filled_, filled_tokens_;
};

}  // namespace amalgam
