// SPDX-License-Identifier: Apache-2.0
#include "questions/question_maker.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "system/error.h"

namespace amalgam {
namespace {

constexpr int64_t sentence_tokens = 256;                       // at most looked at to find the end of a sentence
constexpr int64_t repeated_tokens = 16, continued_tokens = 8;  // of a passage: in the question, in the answer

/// Facts that nothing asks for.
int64_t others_of(RecallKind kind) {
    return kind == RecallKind::four_keys || kind == RecallKind::chains ? 3 : 0;
}

/// Of every fact.
int64_t aliases_of(RecallKind kind) {
    return kind == RecallKind::chains ? 2 : 0;
}

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

int64_t tokens_around(const FactWording& fact) {
    return int64_t(fact.before_key.size() + fact.before_value.size() + fact.after_value.size());
}

/// With its aliases.
int64_t longest_fact(const RecallWording& wording, RecallKind kind) {
    const FactWording& fact = kind == RecallKind::pairs ? wording.pair : wording.fact;
    const int64_t aliases = aliases_of(kind);
    return tokens_around(fact) + longest(wording.keys) + longest(wording.values) +
           (aliases > 0 ? aliases * (tokens_around(wording.alias.value()) + 2 * longest(wording.keys)) : 0);
}

/// With its answer.
int64_t longest_question(const RecallWording& wording, RecallKind kind) {
    const QuestionWording& question = kind == RecallKind::pairs ? wording.of_pair : wording.question;
    return int64_t(question.before_key.size() + question.after_key.size()) + longest(wording.keys) +
           longest(wording.values);
}

/// Places and numbers of what is told; what stands at one place is in the order of its numbers.
using FactPlaces = std::vector<std::pair<int64_t, size_t>>;

FactPlaces sorted(FactPlaces places) {
    std::sort(places.begin(), places.end());
    return places;
}

}  // namespace

/// Where a fact may stand: `places` ascending, 0 and the end among them.
struct QuestionMaker::Haystack {
    TextPiece tokens;
    std::vector<int64_t> places;

    int64_t nearest_place(double wanted) const {
        int64_t best = 0;
        for (const int64_t place : places)
            if (std::abs(double(place) - wanted) < std::abs(double(best) - wanted)) best = place;
        return best;
    }

    /// At or after `first`, which is one of the places; random and ascending.
    std::vector<int64_t> places_from(int64_t first, int64_t count, Draws& draws) const {
        const auto from = std::lower_bound(places.begin(), places.end(), first);
        std::vector<int64_t> found;
        while (int64_t(found.size()) < count) found.push_back(from[draws.below(places.end() - from)]);
        std::sort(found.begin(), found.end());
        return found;
    }
};

int64_t least_tokens(const RecallWording& wording, RecallKind kind) {
    const auto start = int64_t(wording.start.size());
    if (kind == RecallKind::passages) return start + 2 * (repeated_tokens + continued_tokens);
    return start + longest_question(wording, kind) + (1 + others_of(kind)) * longest_fact(wording, kind);
}

int64_t tokens_of_another(const RecallWording& wording, RecallKind kind) {
    if (kind == RecallKind::passages) return repeated_tokens + continued_tokens;
    const FactWording& fact = kind == RecallKind::pairs ? wording.pair : wording.fact;
    return longest_question(wording, kind) + longest_fact(wording, kind) + int64_t(fact.after_value.size());
}

QuestionMaker::QuestionMaker(const QuestionKeys& keys, const RecallWording& wording, const TokenFile& text,
                             FactValues values, Draws draws)
    : names_(keys),
      wording_(wording),
      text_(text),
      fact_values_(values),
      draws_(draws),
      keys_(std::max<size_t>(1, wording.keys.size()), draws_.bits()),  // passages have neither
      values_(std::max<size_t>(1, wording.values.size()), draws_.bits()) {}

std::optional<AskedText> QuestionMaker::make(RecallKind kind, int64_t length, std::span<const double> depths) {
    length_ = length;
    auto made = kind == RecallKind::passages ? among_passages(depths)
                : kind == RecallKind::pairs  ? among_pairs(depths)
                                             : among_sentences(kind, depths);
    if (made && int64_t(made->tokens.size()) != length_)
        throw std::logic_error("a text with recall questions has another length");
    return made;
}

std::optional<AskedText> QuestionMaker::among_sentences(RecallKind kind, std::span<const double> depths) {
    const TextPiece read = kind == RecallKind::noise ? TextPiece() : piece_of_text();
    const int64_t others = others_of(kind), aliases = aliases_of(kind);
    const std::vector<Fact> told = facts(wording_.fact, int64_t(depths.size()) + others, aliases, read);
    if (int64_t(told.size()) <= others) return std::nullopt;
    const std::span<const Fact> asked(told.data(), told.size() - size_t(others));
    const auto questions = this->questions(wording_.question, wording_.fact, asked);

    int64_t room = length_ - int64_t(wording_.start.size());
    for (const TextPiece& question : questions) room -= int64_t(question.size());
    for (const Fact& fact : asked) room -= int64_t(fact.value.size());
    for (const Fact& fact : told)
        for (const TextPiece& sentence : fact.told) room -= int64_t(sentence.size());
    const Haystack hay = kind == RecallKind::noise ? noise(room) : end_of(read, room);
    const auto sentences = size_t(1 + aliases);  // of a fact
    FactPlaces places;
    for (size_t i = 0; i < told.size(); ++i) {
        const int64_t first = i < asked.size() ? hay.nearest_place(depths[i] * double(room))
                                               : hay.places[size_t(draws_.below(int64_t(hay.places.size())))];
        places.emplace_back(first, i * sentences);
        for (const int64_t place : hay.places_from(first, aliases, draws_))
            places.emplace_back(place, places.back().second + 1);
    }

    AskedText result{wording_.start, std::vector<AskedFact>(asked.size())};
    int64_t copied = 0;
    for (const auto& [place, number] : sorted(places)) {
        result.tokens.insert(result.tokens.end(), hay.tokens.begin() + copied, hay.tokens.begin() + place);
        copied = place;
        const size_t i = number / sentences, sentence = number % sentences;
        if (i < asked.size() && sentence == 0) result.asked[i].fact = int64_t(result.tokens.size());
        append(result.tokens, told[i].told[sentence]);
    }
    result.tokens.insert(result.tokens.end(), hay.tokens.begin() + copied, hay.tokens.end());
    ask(result, questions, asked);
    return result;
}

std::optional<AskedText> QuestionMaker::among_pairs(std::span<const double> depths) {
    std::vector<Fact> told = facts(wording_.pair, int64_t(depths.size()), 0, {});
    const size_t asked = told.size();
    if (asked == 0) return std::nullopt;
    const auto questions = this->questions(wording_.of_pair, wording_.pair, told);
    int64_t room = length_ - int64_t(wording_.start.size());
    for (const TextPiece& question : questions) room -= int64_t(question.size());
    for (const Fact& fact : told) room -= int64_t(fact.value.size() + fact.told.front().size());
    while (const auto key = next_key({})) {
        const TextPiece value = this->value(int64_t(told.size()));
        TextPiece other = tell(wording_.pair, *key, value);
        if (int64_t(other.size()) > room) break;
        room -= int64_t(other.size());
        told.push_back({*key, value, {std::move(other)}});
    }
    const auto others = int64_t(told.size() - asked);
    FactPlaces order;  // counted in others: an asked one stands before that other
    for (size_t i = 0; i < told.size(); ++i)
        order.emplace_back(i < asked ? std::lround(depths[i] * double(others)) : int64_t(i - asked), i);

    AskedText result{wording_.start, std::vector<AskedFact>(asked)};
    append(result.tokens, noise(room).tokens);
    for (const auto& [place, i] : sorted(order)) {
        if (i < asked) result.asked[i].fact = int64_t(result.tokens.size());
        append(result.tokens, told[i].told.front());
    }
    ask(result, questions, std::span(told.data(), asked));
    return result;
}

AskedText QuestionMaker::among_passages(std::span<const double> depths) {
    const auto start = int64_t(wording_.start.size());
    const int64_t room = length_ - start - int64_t(depths.size()) * (repeated_tokens + continued_tokens);
    const Haystack hay = end_of(piece_of_text(), room);
    const int64_t last = room - repeated_tokens - continued_tokens;
    AskedText result{wording_.start, {}};
    append(result.tokens, hay.tokens);
    for (const double depth : depths) {
        const int64_t at = std::min(hay.nearest_place(depth * double(last)), last);
        const auto passage = hay.tokens.begin() + at;
        const int64_t answer = int64_t(result.tokens.size()) + repeated_tokens;
        result.tokens.insert(result.tokens.end(), passage, passage + repeated_tokens + continued_tokens);
        result.asked.push_back({start + at, answer, answer + continued_tokens});
    }
    return result;
}

TextPiece QuestionMaker::tell(const FactWording& wording, const TextPiece& key, const TextPiece& value) {
    return joined({&wording.before_key, &key, &wording.before_value, &value, &wording.after_value});
}

/// Fewer than `count` if there are too few keys.
std::vector<QuestionMaker::Fact> QuestionMaker::facts(const FactWording& wording, int64_t count, int64_t aliases,
                                                      const TextPiece& read) {
    std::vector<Fact> all;
    while (int64_t(all.size()) < count) {
        auto key = next_key(read);
        if (!key) break;
        const TextPiece value = this->value(int64_t(all.size()));
        Fact fact{*key, value, {tell(wording, *key, value)}};
        for (int64_t alias = 0; alias < aliases; ++alias) {
            key = next_key(read);
            if (!key) return all;
            fact.told.push_back(tell(wording_.alias.value(), *key, fact.key));
            fact.key = *key;
        }
        all.push_back(std::move(fact));
    }
    return all;
}

/// With what stands between an answer and the next question.
std::vector<TextPiece> QuestionMaker::questions(const QuestionWording& wording, const FactWording& told,
                                                std::span<const Fact> asked) const {
    std::vector<TextPiece> all;
    for (const Fact& fact : asked) {
        all.push_back(all.empty() ? TextPiece() : told.after_value);
        append(all.back(), joined({&wording.before_key, &fact.key, &wording.after_key}));
    }
    return all;
}

void QuestionMaker::ask(AskedText& result, std::span<const TextPiece> questions, std::span<const Fact> asked) const {
    for (size_t i = 0; i < asked.size(); ++i) {
        append(result.tokens, questions[i]);
        result.asked[i].answer = int64_t(result.tokens.size());
        append(result.tokens, asked[i].value);
        result.asked[i].after = int64_t(result.tokens.size());
    }
}

/// The next one in a random order that `read` does not contain: what is asked for must be told once.
std::optional<TextPiece> QuestionMaker::next_key(const TextPiece& read) {
    while (keys_used_ < wording_.keys.size()) {
        const TextPiece& key = wording_.keys[size_t(keys_.image(keys_used_++))];
        if (std::search(read.begin(), read.end(), key.begin(), key.end()) == read.end()) return key;
    }
    return std::nullopt;
}

/// The first differs from the others, and they from each other as long as there are enough.
TextPiece QuestionMaker::value(int64_t number) {
    const int64_t others = int64_t(wording_.values.size()) - 1;
    TextPiece value = wording_.values[size_t(values_.image(uint64_t(number == 0 ? 0 : 1 + (number - 1) % others)))];
    if (fact_values_ == FactValues::of_wording) return value;
    for (size_t place = 1; place < value.size(); ++place) {
        // Of a value with as many tokens: others are cut in other ways.
        auto from = size_t(draws_.below(int64_t(wording_.values.size())));
        while (wording_.values[from].size() != value.size()) from = (from + 1) % wording_.values.size();
        value[place] = wording_.values[from][place];
    }
    return value;
}

/// More of the text than a question needs, from a random place.
TextPiece QuestionMaker::piece_of_text() {
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
QuestionMaker::Haystack QuestionMaker::end_of(const TextPiece& read, int64_t count) const {
    require(int64_t(read.size()) >= count, names_.length, " holds ", length_, " but ", names_.text, " has only ",
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
QuestionMaker::Haystack QuestionMaker::noise(int64_t count) {
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

}  // namespace amalgam
