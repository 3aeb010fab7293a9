// SPDX-License-Identifier: Apache-2.0
// Token files for tests.
#pragma once

#include <filesystem>
#include <vector>

#include "storage/hdf5.h"
#include "system/random.h"

namespace amalgam::test {

/// `answers`: positions of answer tokens, ascending. `tokenizer`: SHA-256 of the tokenizer. `borders`: where documents
/// begin beside the first.
inline void write_tokens(const std::filesystem::path& path, const std::vector<int64_t>& tokens, int64_t vocabulary,
                         const std::vector<int64_t>& answers = {}, const std::string& tokenizer = "none",
                         const std::vector<int64_t>& borders = {}) {
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam tokens", Provenance{});
        file.set_attribute("/", "vocabulary_size", vocabulary);
        file.set_attribute("/", "tokenizer_sha256", tokenizer);
        const std::vector<uint16_t> narrow(tokens.begin(), tokens.end());
        const std::vector<int64_t> size = {int64_t(tokens.size())};
        std::vector<int64_t> offsets = borders;
        offsets.insert(offsets.begin(), 0);
        offsets.push_back(int64_t(tokens.size()));
        file.write("/tokens", StoredType::uint16, size, narrow.data());
        file.write("/document_offsets", std::vector<int64_t>{int64_t(offsets.size())},
                   std::span<const int64_t>(offsets));
        if (!answers.empty())
            file.write("/answer_positions", std::vector<int64_t>{int64_t(answers.size())},
                       std::span<const int64_t>(answers));
    });
}

/// Borders between documents of 1 to 2 * mean - 1 tokens.
inline std::vector<int64_t> document_borders(int64_t tokens, int64_t mean, uint64_t seed) {
    const RandomStream random(seed, "documents");
    std::vector<int64_t> borders;
    for (uint64_t i = 0;; ++i) {
        const int64_t next =
            (borders.empty() ? 0 : borders.back()) + 1 + int64_t(random.bits(i) % uint64_t(2 * mean - 1));
        if (next >= tokens) return borders;
        borders.push_back(next);
    }
}

/// A text with something to learn: mostly each token is followed by its successor.
inline std::vector<int64_t> simple_text(int64_t count, int64_t vocabulary, uint64_t seed) {
    const RandomStream random(seed, "text");
    std::vector<int64_t> tokens = {0};
    for (int64_t i = 1; i < count; ++i) {
        const bool jump = random.uniform(uint64_t(2 * i)) < 0.2;
        tokens.push_back(jump ? int64_t(random.bits(uint64_t(2 * i + 1)) % uint64_t(vocabulary))
                              : (tokens.back() + 1) % vocabulary);
    }
    return tokens;
}

}  // namespace amalgam::test
