// SPDX-License-Identifier: Apache-2.0
#include "questions/recall_wording.h"

#include <algorithm>
#include <set>

#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::string how_to_add(const std::filesystem::path& token_file) {
    return "add it: python inputs/recall_wording.py --tokenizer TEACHER_FOLDER " + token_file.string();
}

class WordingReader {
  public:
    WordingReader(const std::filesystem::path& path, const QuestionKeys& keys) : file_(H5File::open(path)) {
        require(file_.has("/recall"), "data.validation: ", path.string(), " has no wording of recall questions (",
                keys.amount, " asks some) ", how_to_add(path), "; or ask for what needs none: ", keys.kinds,
                ": [passages]; or set ", keys.amount, ": 0");
        vocabulary_ = file_.integer_attribute("/", "vocabulary_size");
    }

    bool has(const std::string& name) const { return file_.has("/recall/" + name); }

    TextPiece tokens(const std::string& name) const {
        const std::string dataset = "/recall/" + name;
        TextPiece tokens;
        for (const int64_t token : file_.read_integers(dataset)) {
            if (token < 0 || token >= vocabulary_)
                damaged(dataset, text("holds token ", token, " (the vocabulary has ", vocabulary_, ")"));
            tokens.push_back(int32_t(token));
        }
        return tokens;
    }

    std::vector<int32_t> sorted(const std::string& name) const {
        auto tokens = this->tokens(name);
        std::sort(tokens.begin(), tokens.end());
        return tokens;
    }

    /// At least `least` pieces, none of them empty.
    std::vector<TextPiece> pieces(const std::string& name, size_t least) const {
        const auto found = split(name);
        if (found.size() < least)
            damaged("/recall/" + name, text("has ", found.size(), " pieces (at least ", least, " are needed)"));
        if (std::any_of(found.begin(), found.end(), [](const TextPiece& piece) { return piece.empty(); }))
            damaged("/recall/" + name, "has an empty piece");
        return found;
    }

    std::vector<TextPiece> different(const std::string& name, size_t least) const {
        const auto found = pieces(name, least);
        if (std::set<TextPiece>(found.begin(), found.end()).size() != found.size())
            damaged("/recall/" + name, "holds the same piece twice (nobody could tell which is asked for)");
        return found;
    }

    FactWording fact(const std::string& name) const {
        const auto parts = split(name, 3);
        return {parts[0], parts[1], parts[2]};
    }

    QuestionWording question(const std::string& name) const {
        const auto parts = split(name, 2);
        if (parts[0].empty() && parts[1].empty()) damaged("/recall/" + name, "asks nothing");
        return {parts[0], parts[1]};
    }

  private:
    [[noreturn]] void damaged(const std::string& dataset, const std::string& why) const {
        throw Error(text(file_.path().string(), ": ", dataset, ": ", why, "; write it again with recall_wording.py"),
                    ExitCode::damaged_file);
    }

    std::vector<TextPiece> split(const std::string& name) const {
        const TextPiece all = tokens(name);
        const std::string dataset = "/recall/" + name + "_offsets";
        const auto offsets = file_.read_integers(dataset);
        if (offsets.empty() || offsets.front() != 0 || offsets.back() != int64_t(all.size()) ||
            !std::is_sorted(offsets.begin(), offsets.end()))
            damaged(dataset, text("does not rise from 0 to ", all.size()));
        std::vector<TextPiece> parts;
        for (size_t i = 0; i + 1 < offsets.size(); ++i)
            parts.emplace_back(all.begin() + offsets[i], all.begin() + offsets[i + 1]);
        return parts;
    }

    std::vector<TextPiece> split(const std::string& name, size_t count) const {
        auto parts = split(name);
        if (parts.size() != count)
            damaged("/recall/" + name, text("has ", parts.size(), " pieces (", count, " are needed)"));
        return parts;
    }

    H5File file_;
    int64_t vocabulary_ = 0;
};

}  // namespace

QuestionKeys QuestionKeys::of_recall(const std::string& section, const std::string& text) {
    return {section + ".questions", section + ".kinds", section + ".lengths", text};
}

QuestionKeys QuestionKeys::of_training(const std::string& stage) {
    return {stage + ".question_fraction", stage + ".question_kinds", stage + ".sequence_length", "data.training"};
}

RecallWording read_recall_wording(const std::filesystem::path& token_file, const RecallJob& job,
                                  const std::string& section) {
    return read_recall_wording(token_file, job.kinds, QuestionKeys::of_recall(section));
}

RecallWording read_recall_wording(const std::filesystem::path& token_file, const std::vector<std::string>& kinds,
                                  const QuestionKeys& keys) {
    const std::vector<std::string> passages = {std::string(name_of(RecallKind::passages))};
    if (kinds == passages && !H5File::open(token_file).has("/recall")) return {};
    const WordingReader reader(token_file, keys);
    RecallWording wording;
    wording.start = reader.tokens("start");
    wording.noise = reader.pieces("noise", 1);
    wording.fact = reader.fact("fact");
    wording.pair = reader.fact("pair");
    if (reader.has("alias")) wording.alias = reader.fact("alias");
    const std::string chains(name_of(RecallKind::chains));
    require(wording.alias || std::find(kinds.begin(), kinds.end(), chains) == kinds.end(),
            "data.validation: ", token_file.string(), " has no wording of aliases (", keys.kinds, " has ", chains,
            ", which earlier versions did not know) ", how_to_add(token_file), "; or leave ", chains, " out of ",
            keys.kinds);
    wording.question = reader.question("question");
    wording.of_pair = reader.question("question_of_pair");
    wording.keys = reader.different("keys", 4);
    wording.values = reader.different("values", 4);
    wording.sentence_ends = reader.sorted("sentence_ends");
    wording.left_out_of_text = reader.sorted("left_out_of_text");
    return wording;
}

}  // namespace amalgam
