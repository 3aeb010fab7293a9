// SPDX-License-Identifier: Apache-2.0
#include "evaluation/request_file.h"

#include <algorithm>

#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::vector<int32_t> read_tokens(const H5File& file, const std::string& name, int64_t vocabulary) {
    std::vector<int32_t> tokens(size_t(file.describe(name).shape.at(0)));
    file.read(name, StoredType::int32, tokens.data());
    for (size_t i = 0; i < tokens.size(); ++i)
        if (tokens[i] < 0 || tokens[i] >= vocabulary)
            throw Error(text(file.path().string(), ": ", name, ": element ", i, " is ", tokens[i],
                             " (the vocabulary has ", vocabulary, ")"),
                        ExitCode::damaged_file);
    return tokens;
}

/// Starts of pieces of `total` elements, and the end.
void expect_offsets(const H5File& file, const std::string& name, const std::vector<int64_t>& offsets, size_t total) {
    if (offsets.empty() || offsets.front() != 0 || offsets.back() != int64_t(total) ||
        !std::is_sorted(offsets.begin(), offsets.end()))
        throw Error(text(file.path().string(), ": ", name, ": does not rise from 0 to ", total),
                    ExitCode::damaged_file);
}

/// Bytes are stored as 16-bit numbers.
std::string read_bytes(const H5File& file, const std::string& name) {
    std::vector<uint16_t> numbers(size_t(file.describe(name).shape.at(0)));
    file.read(name, StoredType::uint16, numbers.data());
    return {numbers.begin(), numbers.end()};
}

}  // namespace

RequestFile::RequestFile(const std::filesystem::path& path) {
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam requests");
    vocabulary_size_ = file.integer_attribute("/", "vocabulary_size");
    tokenizer_sha256_ = file.string_attribute("/", "tokenizer_sha256");
    fingerprint_ = file.string_attribute("/", "fingerprint");
    tokens_ = read_tokens(file, "/tokens", vocabulary_size_);
    stop_tokens_ = read_tokens(file, "/stop_tokens", vocabulary_size_);
    offsets_ = file.read_integers("/offsets");
    stop_offsets_ = file.read_integers("/stop_offsets");
    context_ = file.read_integers("/context_tokens");
    max_new_tokens_ = file.read_integers("/max_new_tokens");
    stop_set_ = file.read_integers("/stop_set");
    expect_offsets(file, "/offsets", offsets_, tokens_.size());
    expect_offsets(file, "/stop_offsets", stop_offsets_, stop_tokens_.size());
    if (file.has("/stop_strings")) read_stop_strings(file);
    const size_t count = context_.size();
    bool right = offsets_.size() == count + 1 && max_new_tokens_.size() == count && stop_set_.size() == count;
    for (size_t i = 0; right && i < count; ++i) {
        const int64_t length = offsets_[i + 1] - offsets_[i];
        const bool generates = max_new_tokens_[i] > 0;
        right = context_[i] >= 1 && (generates ? context_[i] == length : context_[i] < length) &&
                max_new_tokens_[i] >= 0 && stop_set_[i] >= 0 && stop_set_[i] + 1 < int64_t(stop_offsets_.size());
    }
    if (!right || count == 0)
        throw Error(text(path.string(), ": its requests do not fit together; write it again with lm_eval_export.py"),
                    ExitCode::damaged_file);
}

void RequestFile::read_stop_strings(const H5File& file) {
    std::string token_bytes = read_bytes(file, "/token_bytes");
    auto token_offsets = file.read_integers("/token_byte_offsets");
    expect_offsets(file, "/token_byte_offsets", token_offsets, token_bytes.size());
    token_bytes_ = std::make_unique<TokenBytes>(std::move(token_bytes), std::move(token_offsets));
    const std::string strings = read_bytes(file, "/stop_strings");
    const auto offsets = file.read_integers("/stop_string_offsets"), sets = file.read_integers("/stop_string_set");
    expect_offsets(file, "/stop_string_offsets", offsets, strings.size());
    std::map<int64_t, std::vector<std::string>> of_set;
    for (size_t i = 0; i < sets.size(); ++i) {
        if (offsets.size() != sets.size() + 1 || offsets[i] == offsets[i + 1])
            throw Error(text(file.path().string(), ": /stop_strings: string ", i, " is empty or missing"),
                        ExitCode::damaged_file);
        of_set[sets[i]].push_back(strings.substr(size_t(offsets[i]), size_t(offsets[i + 1] - offsets[i])));
    }
    for (auto& [set, all] : of_set) stop_strings_.emplace(set, StopStrings(*token_bytes_, std::move(all)));
}

Request RequestFile::request(int64_t index) const {
    const size_t i = size_t(index);
    const auto begin = size_t(offsets_[i]);
    return {std::span(tokens_).subspan(begin, size_t(offsets_[i + 1]) - begin), context_[i], max_new_tokens_[i],
            stop_set_[i]};
}

std::span<const int32_t> RequestFile::stops(int64_t set) const {
    const auto begin = size_t(stop_offsets_[size_t(set)]);
    return std::span(stop_tokens_).subspan(begin, size_t(stop_offsets_[size_t(set) + 1]) - begin);
}

const StopStrings* RequestFile::stop_strings(int64_t set) const {
    const auto found = stop_strings_.find(set);
    return found == stop_strings_.end() ? nullptr : &found->second;
}

}  // namespace amalgam
