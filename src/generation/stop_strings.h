// SPDX-License-Identifier: Apache-2.0
// Strings that end an answer. They are looked for in the bytes of its tokens: tokens are pieces of neither strings nor
// characters, and a text of half a character has no string in it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace amalgam {

/// What every token of a vocabulary stands for.
class TokenBytes {
  public:
    TokenBytes() = default;
    /// The bytes of token t are [offsets[t], offsets[t + 1]) of `bytes`.
    TokenBytes(std::string bytes, std::vector<int64_t> offsets)
        : bytes_(std::move(bytes)), offsets_(std::move(offsets)) {}

    /// Nothing of a token that the vocabulary does not have: a model may have more than its tokenizer.
    std::string_view of(int32_t token) const;

  private:
    std::string bytes_;
    std::vector<int64_t> offsets_ = {0};
};

class StopStrings {
  public:
    /// None of `strings` is empty; there may be none. `bytes` must stay.
    StopStrings(const TokenBytes& bytes, std::vector<std::string> strings);

    /// Whether a string ends with `token` or within it. `before`: what the answer's tokens so far left for the next
    /// ones; at first empty.
    bool end_with(int32_t token, std::string& before) const;

  private:
    const TokenBytes* bytes_;
    std::vector<std::string> strings_;
    size_t longest_ = 0;  // bytes
};

}  // namespace amalgam
