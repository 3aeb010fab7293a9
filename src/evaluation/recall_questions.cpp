// SPDX-License-Identifier: Apache-2.0
#include "evaluation/recall_questions.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "system/error.h"
#include "system/random.h"

namespace amalgam {
namespace {

constexpr int64_t facts_of_four_keys = 4;
constexpr int64_t sentence_tokens = 256;                       // at most looked at to find the end of a sentence
constexpr int64_t repeated_tokens = 16, continued_tokens = 8;  // of a passage: in the question, in the answer

void append(TextPiece& to, const TextPiece& piece) {
    to.insert(to.end(), piece.begin(), piece.end());
}

TextPiece joined(std::initializer_list<const TextPiece*> pieces) {
    TextPiece all;
    for (const TextPiece* piece : pieces) append(all, *piece);
    return all;
}

int64_t longest(const std::vector<TextPiece>& pieces) {
    size_t most = 0;
    for (const TextPiece& piece : pieces) most = std::max(most, piece.size());
    return int64_t(most);
}

bool contains(const std::vector<int32_t>& sorted, int32_t token) {
    return std::binary_search(sorted.begin(), sorted.end(), token);
}

/// Where a fact may stand: `places` ascending, 0 and the end among them.
struct Haystack {
    TextPiece tokens;
    std::vector<int64_t> places;
};

int64_t nearest_place(const Haystack& hay, double wanted) {
    int64_t best = 0;
    for (const int64_t place : hay.places)
        if (std::abs(double(place) - wanted) < std::abs(double(best) - wanted)) best = place;
    return best;
}

/// Random numbers of one question, one after another.
class Draws {
  public:
    Draws(int64_t seed, const std::string& name) : stream_(uint64_t(seed), name) {}
    uint64_t bits() { return stream_.bits(drawn_++); }
    int64_t below(int64_t end) { return int64_t(bits() % uint64_t(end)); }

  private:
    RandomStream stream_;
    uint64_t drawn_ = 0;
};

/// Makes one question.
class Maker {
  public:
    Maker(const std::string& section, const std::string& text_key, const RecallWording& wording, const TokenFile& text,
          int64_t length, double depth, Draws draws)
        : section_(section),
          text_key_(text_key),
          wording_(wording),
          text_(text),
          length_(length),
          depth_(depth),
          draws_(draws),
          keys_(std::max<size_t>(1, wording.keys.size()), draws_.bits()),  // passages have neither
          values_(std::max<size_t>(1, wording.values.size()), draws_.bits()) {}

    RecallQuestion among_sentences(RecallKind kind) {
        const TextPiece read = kind == RecallKind::noise ? TextPiece() : piece_of_text();
        const int64_t facts = kind == RecallKind::four_keys ? facts_of_four_keys : 1;
        std::vector<TextPiece> told;
        const TextPiece key = next_key(read), value = this->value(0);
        told.push_back(fact(wording_.fact, key, value));
        for (int64_t i = 1; i < facts; ++i) told.push_back(fact(wording_.fact, next_key(read), this->value(i)));
        const TextPiece question = joined({&wording_.question.before_key, &key, &wording_.question.after_key});

        int64_t room = length_ - int64_t(wording_.start.size() + question.size() + value.size());
        for (const TextPiece& one : told) room -= int64_t(one.size());
        const Haystack hay = kind == RecallKind::noise ? noise(room) : end_of(read, room);
        std::vector<std::pair<int64_t, size_t>> places = {{nearest_place(hay, depth_ * double(room)), 0}};
        for (size_t i = 1; i < told.size(); ++i)
            places.emplace_back(hay.places[size_t(draws_.below(int64_t(hay.places.size())))], i);
        std::sort(places.begin(), places.end());

        RecallQuestion result{wording_.start, 0, 0};
        int64_t copied = 0;
        for (const auto& [place, i] : places) {
            result.tokens.insert(result.tokens.end(), hay.tokens.begin() + copied, hay.tokens.begin() + place);
            copied = place;
            if (i == 0) result.fact = int64_t(result.tokens.size());
            append(result.tokens, told[i]);
        }
        result.tokens.insert(result.tokens.end(), hay.tokens.begin() + copied, hay.tokens.end());
        return finish(std::move(result), question, value);
    }

    RecallQuestion among_pairs() {
        const TextPiece key = next_key({}), value = this->value(0);
        const TextPiece question = joined({&wording_.of_pair.before_key, &key, &wording_.of_pair.after_key});
        const TextPiece asked = fact(wording_.pair, key, value);
        int64_t room = length_ - int64_t(wording_.start.size() + question.size() + value.size() + asked.size());
        std::vector<TextPiece> others;
        while (keys_used_ < wording_.keys.size()) {
            TextPiece other = fact(wording_.pair, next_key({}), this->value(int64_t(others.size()) + 1));
            if (int64_t(other.size()) > room) break;
            room -= int64_t(other.size());
            others.push_back(std::move(other));
        }
        RecallQuestion result{wording_.start, 0, 0};
        append(result.tokens, noise(room).tokens);
        const auto before = size_t(std::lround(depth_ * double(others.size())));
        for (size_t i = 0; i <= others.size(); ++i) {
            if (i == before) {
                result.fact = int64_t(result.tokens.size());
                append(result.tokens, asked);
            }
            if (i < others.size()) append(result.tokens, others[i]);
        }
        return finish(std::move(result), question, value);
    }

    RecallQuestion among_passages() {
        const int64_t room = length_ - int64_t(wording_.start.size()) - repeated_tokens - continued_tokens;
        const Haystack hay = end_of(piece_of_text(), room);
        const int64_t last = room - repeated_tokens - continued_tokens;
        const int64_t at = std::min(nearest_place(hay, depth_ * double(last)), last);
        const auto passage = hay.tokens.begin() + at, rest = passage + repeated_tokens;
        RecallQuestion result{wording_.start, 0, int64_t(wording_.start.size()) + at};
        append(result.tokens, hay.tokens);
        return finish(std::move(result), {passage, rest}, {rest, rest + continued_tokens});
    }

  private:
    static TextPiece fact(const FactWording& wording, const TextPiece& key, const TextPiece& value) {
        return joined({&wording.before_key, &key, &wording.before_value, &value, &wording.after_value});
    }

    RecallQuestion finish(RecallQuestion result, const TextPiece& question, const TextPiece& value) const {
        append(result.tokens, question);
        result.context = int64_t(result.tokens.size());
        append(result.tokens, value);
        if (int64_t(result.tokens.size()) != length_) throw std::logic_error("a recall question has another length");
        return result;
    }

    /// The next one in a random order that `tokens` do not contain.
    TextPiece next_key(const TextPiece& tokens) {
        while (keys_used_ < wording_.keys.size()) {
            const TextPiece& key = wording_.keys[size_t(keys_.image(keys_used_++))];
            if (std::search(tokens.begin(), tokens.end(), key.begin(), key.end()) == tokens.end()) return key;
        }
        throw Error(text(section_, ": all but a few of the ", wording_.keys.size(), " keys occur in a text of ",
                         length_, " tokens (what is asked for must be told once) lower ", section_,
                         ".lengths, or leave text and four_keys out of ", section_, ".kinds"),
                    ExitCode::bad_input);
    }

    /// The first is the answer's; the others differ from it, and from each other as long as there are enough.
    TextPiece value(int64_t number) const {
        const int64_t others = int64_t(wording_.values.size()) - 1;
        return wording_.values[size_t(values_.image(uint64_t(number == 0 ? 0 : 1 + (number - 1) % others)))];
    }

    /// More of the text than a question needs, from a random place.
    TextPiece piece_of_text() {
        const int64_t most = length_ + sentence_tokens;
        int64_t at = draws_.below(text_.size());  // behind the last token comes the first
        TextPiece read;
        std::vector<int64_t> block;
        for (int64_t seen = 0; int64_t(read.size()) < most && seen < text_.size(); seen += int64_t(block.size())) {
            block.resize(size_t(std::min({text_.size() - at, text_.size() - seen, most})));
            text_.read(at, block);
            at = (at + int64_t(block.size())) % text_.size();
            for (const int64_t token : block)
                if (int64_t(read.size()) < most && !contains(wording_.left_out_of_text, int32_t(token)))
                    read.push_back(int32_t(token));
        }
        return read;
    }

    /// `count` tokens up to the end of a sentence.
    Haystack end_of(const TextPiece& read, int64_t count) const {
        require(int64_t(read.size()) >= count, section_, ".lengths holds ", length_, " but ", text_key_, " has only ",
                read.size(),
                " tokens without the ends of documents (facts are hidden in them) lower it, or give a larger file");
        const auto ends = [&](int64_t place) { return contains(wording_.sentence_ends, read[size_t(place - 1)]); };
        int64_t end = count;
        while (end < int64_t(read.size()) && !(end > 0 && ends(end))) ++end;
        if (end == int64_t(read.size())) end = count;  // none near: within a sentence
        const int64_t first = end - count;
        Haystack hay{{read.begin() + first, read.begin() + end}, {0}};
        for (int64_t place = 1; place < count; ++place)
            if (ends(first + place)) hay.places.push_back(place);
        hay.places.push_back(count);
        return hay;
    }

    /// `count` tokens of noise that end with a sentence.
    Haystack noise(int64_t count) {
        Haystack hay;
        std::vector<int64_t> ends;
        for (int64_t i = draws_.below(int64_t(wording_.noise.size())); int64_t(hay.tokens.size()) < count; ++i) {
            append(hay.tokens, wording_.noise[size_t(i) % wording_.noise.size()]);
            ends.push_back(int64_t(hay.tokens.size()));
        }
        const int64_t surplus = int64_t(hay.tokens.size()) - count;
        hay.tokens.erase(hay.tokens.begin(), hay.tokens.begin() + surplus);
        hay.places = {0};
        for (const int64_t end : ends)
            if (end > surplus) hay.places.push_back(end - surplus);
        return hay;
    }

    const std::string &section_, &text_key_;
    const RecallWording& wording_;
    const TokenFile& text_;
    int64_t length_;
    double depth_;  // 0 to 1
    Draws draws_;
    Permutation keys_, values_;
    uint64_t keys_used_ = 0;
};

}  // namespace

RecallQuestions::RecallQuestions(const RecallJob& job, RecallWording wording, const TokenFile& text,
                                 std::string section, std::string text_key)
    : job_(job),
      wording_(std::move(wording)),
      text_(text),
      section_(std::move(section)),
      text_key_(std::move(text_key)) {
    const int64_t key = longest(wording_.keys), value = longest(wording_.values);
    const auto fact = [&](const FactWording& w) {
        return int64_t(w.before_key.size() + w.before_value.size() + w.after_value.size()) + key + value;
    };
    const auto question = [&](const QuestionWording& w) {
        return int64_t(wording_.start.size() + w.before_key.size() + w.after_key.size()) + key + value;
    };
    const auto least_of = [&](RecallKind kind) {
        if (kind == RecallKind::passages)
            return int64_t(wording_.start.size()) + 2 * (repeated_tokens + continued_tokens);
        if (kind == RecallKind::pairs) return question(wording_.of_pair) + fact(wording_.pair);
        return question(wording_.question) +
               (kind == RecallKind::four_keys ? facts_of_four_keys : 1) * fact(wording_.fact);
    };
    int64_t least = 0;
    for (const std::string& kind : job_.kinds) least = std::max(least, least_of(*find_value<RecallKind>(kind)));
    for (const int64_t length : job_.lengths) {
        require(length >= least, section_, ".lengths holds ", length, " but a question without any context has up to ",
                least, " tokens (nothing would be hidden) raise it");
        require(text_.size() >= length, section_, ".lengths holds ", length, " but ", text_key_, " has only ",
                text_.size(), " tokens (facts are hidden in them) lower it, or give a larger file");
    }
}

int64_t RecallQuestions::size() const {
    return job_.questions_of_a_length() * int64_t(job_.lengths.size());
}

RecallKind RecallQuestions::kind(int64_t question) const {
    const int64_t of_a_kind = job_.questions * int64_t(job_.depths.size() * job_.lengths.size());
    return *find_value<RecallKind>(job_.kinds[size_t(question / of_a_kind)]);
}

int64_t RecallQuestions::length(int64_t question) const {
    const int64_t of_a_cell = job_.questions * int64_t(job_.depths.size());
    return job_.lengths[size_t(question / of_a_cell) % job_.lengths.size()];
}

int64_t RecallQuestions::depth(int64_t question) const {
    return job_.depths[size_t(question / job_.questions) % job_.depths.size()];
}

RecallQuestion RecallQuestions::make(int64_t question) const {
    const RecallKind kind = this->kind(question);
    // By what is asked, not by the number: more questions, or other lengths beside these, leave them as they are.
    const Draws draws(job_.seed, text("recall ", name_of(kind), " ", length(question), " ", depth(question), " ",
                                      question % job_.questions));
    Maker maker(section_, text_key_, wording_, text_, length(question), double(depth(question)) / 100.0, draws);
    if (kind == RecallKind::passages) return maker.among_passages();
    return kind == RecallKind::pairs ? maker.among_pairs() : maker.among_sentences(kind);
}

}  // namespace amalgam
