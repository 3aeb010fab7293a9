// SPDX-License-Identifier: Apache-2.0
#include "storage/token_file.h"

#include <algorithm>

#include "system/error.h"

namespace amalgam {

namespace {

template <class... Parts>
[[noreturn]] void damaged(const H5File& file, const Parts&... parts) {
    throw Error(text(file.path().string(), ": ", parts...), ExitCode::damaged_file);
}

DatasetInfo describe_list(const H5File& file, const std::string& name) {
    if (!file.has(name)) damaged(file, name, ": no such dataset (a token file has one); was it written by inputs/?");
    DatasetInfo info = file.describe(name);
    if (info.shape.size() != 1) damaged(file, name, ": has ", info.shape.size(), " dimensions (1 is needed)");
    return info;
}

constexpr const char* offsets_name = "/document_offsets";

/// Starts at 0, never falls, ends at `tokens`. Read in pieces: a large corpus has very many documents.
DocumentIndex read_document_index(const H5File& file, int64_t tokens) {
    const std::string name = offsets_name;
    const DatasetInfo info = describe_list(file, name);
    if (info.type != StoredType::int64) damaged(file, name, ": is not int64");
    const int64_t count = info.shape[0];
    if (count < 2)
        damaged(file, name, ": has ", count, " elements (the starts of the documents plus the end are needed)");

    DocumentIndex index;
    constexpr int64_t piece = 1 << 20;
    static_assert(piece % DocumentIndex::distance == 0);
    std::vector<int64_t> offsets;
    int64_t previous = 0;
    for (int64_t first = 0; first < count; first += piece) {
        offsets.resize(static_cast<size_t>(std::min(piece, count - first)));
        file.read_rows(name, StoredType::int64, first, static_cast<int64_t>(offsets.size()), offsets.data());
        if (first == 0 && offsets[0] != 0) damaged(file, name, ": begins with ", offsets[0], " (0 is needed)");
        for (size_t i = 0; i < offsets.size(); ++i) {
            if (offsets[i] < previous)
                damaged(file, name, ": falls from ", previous, " to ", offsets[i], " at element ",
                        first + static_cast<int64_t>(i), " (documents follow each other)");
            if (offsets[i] > previous) ++index.documents;
            if (i % DocumentIndex::distance == 0) index.offsets.push_back(offsets[i]);
            previous = offsets[i];
        }
    }
    if (previous != tokens) damaged(file, name, ": ends with ", previous, " but /tokens has ", tokens, " elements");
    index.count = count;
    return index;
}

std::vector<int64_t> read_answer_positions(const H5File& file, int64_t tokens) {
    const std::string name = "/answer_positions";
    if (!file.has(name)) return {};
    if (describe_list(file, name).type != StoredType::int64) damaged(file, name, ": is not int64");
    const auto positions = file.read_integers(name);
    for (size_t i = 0; i < positions.size(); ++i) {
        if (positions[i] < 0 || positions[i] >= tokens)
            damaged(file, name, ": element ", i, " is ", positions[i], " (outside of the ", tokens, " tokens)");
        if (i > 0 && positions[i] <= positions[i - 1])
            damaged(file, name, ": element ", i, " is ", positions[i], " after ", positions[i - 1],
                    " (they must be sorted, each once)");
    }
    return positions;
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path) : file_(H5File::open(path)) {
    file_.expect_filetype("amalgam tokens");
    for (const char* name : {"vocabulary_size", "tokenizer_sha256"})
        if (!file_.has_attribute("/", name))
            damaged(file_, "has no attribute ", name, " (tokens mean nothing without)");
    vocabulary_size_ = file_.integer_attribute("/", "vocabulary_size");
    if (vocabulary_size_ < 1) damaged(file_, "attribute vocabulary_size is ", vocabulary_size_);
    tokenizer_sha256_ = file_.string_attribute("/", "tokenizer_sha256");

    const DatasetInfo tokens = describe_list(file_, "/tokens");
    if (tokens.type != StoredType::uint16 && tokens.type != StoredType::uint32)
        damaged(file_, "/tokens: is neither uint16 nor uint32");
    size_ = tokens.shape[0];
    documents_ = read_document_index(file_, size_);
    answer_positions_ = read_answer_positions(file_, size_);
}

void TokenFile::read(int64_t first, std::span<int64_t> out) const {
    file_.read_rows("/tokens", StoredType::int64, first, static_cast<int64_t>(out.size()), out.data());
    for (size_t i = 0; i < out.size(); ++i)
        if (out[i] >= vocabulary_size_)
            damaged(file_, "/tokens: token ", first + static_cast<int64_t>(i), " is ", out[i], " (the vocabulary has ",
                    vocabulary_size_, "); does the file belong to another tokenizer?");
}

std::vector<int64_t> TokenFile::borders(int64_t first, int64_t count) const {
    // The last of the known offsets at or before `first`.
    const auto known = std::upper_bound(documents_.offsets.begin(), documents_.offsets.end(), first);
    const int64_t blocks_before = std::max<int64_t>(known - documents_.offsets.begin() - 1, 0);
    std::vector<int64_t> result, offsets;
    for (int64_t at = blocks_before * DocumentIndex::distance; at < documents_.count; at += DocumentIndex::distance) {
        offsets.resize(static_cast<size_t>(std::min(DocumentIndex::distance, documents_.count - at)));
        file_.read_rows(offsets_name, StoredType::int64, at, static_cast<int64_t>(offsets.size()), offsets.data());
        for (const int64_t offset : offsets) {
            if (offset >= first + count) return result;
            const bool is_empty = !result.empty() && result.back() == offset - first;  // the document before
            if (offset > first && !is_empty) result.push_back(offset - first);
        }
    }
    return result;
}

std::vector<int64_t> TokenFile::group_offsets(int64_t group) const {
    const int64_t first = group * DocumentIndex::distance;
    std::vector<int64_t> result(static_cast<size_t>(std::min(DocumentIndex::distance + 1, documents_.count - first)));
    file_.read_rows(offsets_name, StoredType::int64, first, static_cast<int64_t>(result.size()), result.data());
    return result;
}

std::vector<int64_t> TokenFile::answers(int64_t first, int64_t count) const {
    auto begin = std::lower_bound(answer_positions_.begin(), answer_positions_.end(), first);
    auto end = std::lower_bound(begin, answer_positions_.end(), first + count);
    std::vector<int64_t> result(begin, end);
    for (int64_t& position : result) position -= first;
    return result;
}

}  // namespace amalgam
