// SPDX-License-Identifier: Apache-2.0
// Passages that a training sequence repeats. Plain text seldom asks a model for something that it read a thousand
// tokens ago; a repeated passage asks for every token after its first few, at any distance, and a teacher with softmax
// in all layers knows the answer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "system/random.h"

namespace amalgam {

/// Tokens of a repeated passage, unless the sequence is too short for it.
constexpr int64_t shortest_repeat = 16, longest_repeat = 128;

/// Overwrites passages with copies of passages that stand before them in the same text, about `fraction` (0 to 0.5) of
/// the tokens in all: one passage in each of equal parts, of any length between the two above and from any distance. A
/// passage takes half of its part at most, so that beyond a quarter of the tokens it becomes less than asked.
/// `borders`: where in `tokens` another text begins, ascending. `sequence` counts the sequences of `stream`: the same
/// number always repeats the same places.
void repeat_passages(std::span<int64_t> tokens, const std::vector<int64_t>& borders, double fraction,
                     const RandomStream& stream, uint64_t sequence);

}  // namespace amalgam
