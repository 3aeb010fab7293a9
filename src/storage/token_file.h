// SPDX-License-Identifier: Apache-2.0
// The HDF5 token file: `/tokens` (uint16 or uint32), `/document_offsets` (int64, starts plus the end) and, optionally,
// `/answer_positions` (int64, sorted positions in /tokens of answers whose accuracy is to be reported). Documents are
// concatenated; sequences are cut from the whole at multiples of their length, unless documents are packed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "storage/hdf5.h"

namespace amalgam {

/// Where documents begin: every so many elements of /document_offsets, since a large corpus has very many.
struct DocumentIndex {
    static constexpr int64_t distance = 64;
    std::vector<int64_t> offsets;  // elements 0, distance, 2 distance, ...
    int64_t count = 0;             // of all elements
    int64_t documents = 0;         // with at least one token
};

class TokenFile {
  public:
    /// Checks type, offsets and attributes. Throws Error(damaged_file) naming file and dataset.
    explicit TokenFile(const std::filesystem::path& path);

    int64_t size() const { return size_; }                        // tokens
    int64_t vocabulary_size() const { return vocabulary_size_; }  // of the tokenizer
    const std::string& tokenizer_sha256() const { return tokenizer_sha256_; }
    int64_t sequences(int64_t length) const { return size_ / length; }
    int64_t documents() const { return documents_.documents; }  // with at least one token

    /// Tokens [first, first + out.size()). Throws Error(damaged_file) if one is outside the vocabulary, with position.
    void read(int64_t first, std::span<int64_t> out) const;

    /// Where documents begin between the tokens of [first, first + count), relative to `first`: ascending, each once,
    /// without the first token.
    std::vector<int64_t> borders(int64_t first, int64_t count) const;

    /// Documents in groups of DocumentIndex::distance neighbours, the last of fewer.
    int64_t document_groups() const { return (documents_.count - 2) / DocumentIndex::distance + 1; }
    /// Tokens before a group; of the number of groups: all.
    int64_t group_start(int64_t group) const {
        return group < document_groups() ? documents_.offsets[static_cast<size_t>(group)] : size_;
    }
    /// Where each of its documents begins, then the end; empty ones are among them.
    std::vector<int64_t> group_offsets(int64_t group) const;

    /// Answers within [first, first + count), relative to `first`. Empty if the file marks none.
    std::vector<int64_t> answers(int64_t first, int64_t count) const;

  private:
    H5File file_;
    int64_t size_ = 0, vocabulary_size_ = 0;
    std::string tokenizer_sha256_;
    DocumentIndex documents_;
    std::vector<int64_t> answer_positions_;
};

}  // namespace amalgam
