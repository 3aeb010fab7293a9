// SPDX-License-Identifier: Apache-2.0
// A wording of recall questions in a vocabulary of 61 tokens, and texts to hide facts in.
#pragma once

#include "questions/recall_wording.h"
#include "storage/hdf5.h"
#include "system/random.h"

namespace amalgam::test {

constexpr int32_t sentence_end = 60, document_end = 0;

/// Facts are 20 21 KEY 22 VALUE 23, aliases 20 21 KEY 29 KEY 23, questions 26 27 KEY 22; in lists KEY 24 VALUE 25 and
/// 28 KEY 22. Keys have two tokens, values three. There are at most 60 keys.
inline RecallWording small_wording(int32_t keys = 12) {
    RecallWording w;
    w.start = {1};
    w.noise = {{2, 3, 4, sentence_end}, {5, 6, sentence_end}, {7, 8, 9, 10, sentence_end}};
    w.fact = {{20, 21}, {22}, {23}};
    w.pair = {{}, {24}, {25}};
    w.alias = {{20, 21}, {29}, {23}};
    w.question = {{26, 27}, {22}};
    w.of_pair = {{28}, {22}};
    for (int32_t i = 0; i < keys; ++i) w.keys.push_back({40 + i % 6, 30 + i / 6});
    for (int32_t i = 0; i < 12; ++i) w.values.push_back({50 + i % 4, 54 + i / 4, 50 + i * 3 % 4});
    w.sentence_ends = {sentence_end};
    w.left_out_of_text = {document_end};
    return w;
}

/// Sentences of five tokens, none of which the wording has but for the end; a document has fifty tokens.
inline std::vector<int64_t> sentences(int64_t count) {
    const RandomStream random(7, "sentences");
    std::vector<int64_t> tokens;
    for (int64_t i = 0; i < count; ++i)
        tokens.push_back(i % 50 == 49 ? document_end
                         : i % 5 == 4 ? sentence_end
                                      : 11 + int64_t(random.bits(uint64_t(i)) % 9));
    return tokens;
}

inline void write_pieces(H5File& file, const std::string& name, const std::vector<TextPiece>& pieces) {
    TextPiece all;
    std::vector<int64_t> offsets = {0};
    for (const TextPiece& piece : pieces) {
        all.insert(all.end(), piece.begin(), piece.end());
        offsets.push_back(int64_t(all.size()));
    }
    file.write("/recall/" + name, std::vector<int64_t>{int64_t(all.size())}, std::span<const int32_t>(all));
    file.write("/recall/" + name + "_offsets", std::vector<int64_t>{int64_t(offsets.size())},
               std::span<const int64_t>(offsets));
}

/// Adds the group /recall to a token file.
inline void write_wording(const std::filesystem::path& token_file, const RecallWording& w) {
    H5File file = H5File::update(token_file);
    for (const auto& [name, tokens] :
         {std::pair{"start", &w.start}, {"sentence_ends", &w.sentence_ends}, {"left_out_of_text", &w.left_out_of_text}})
        file.write(std::string("/recall/") + name, std::vector<int64_t>{int64_t(tokens->size())},
                   std::span<const int32_t>(*tokens));
    write_pieces(file, "noise", w.noise);
    write_pieces(file, "fact", {w.fact.before_key, w.fact.before_value, w.fact.after_value});
    write_pieces(file, "pair", {w.pair.before_key, w.pair.before_value, w.pair.after_value});
    if (w.alias) write_pieces(file, "alias", {w.alias->before_key, w.alias->before_value, w.alias->after_value});
    write_pieces(file, "question", {w.question.before_key, w.question.after_key});
    write_pieces(file, "question_of_pair", {w.of_pair.before_key, w.of_pair.after_key});
    write_pieces(file, "keys", w.keys);
    write_pieces(file, "values", w.values);
    file.close();
}

}  // namespace amalgam::test
