// SPDX-License-Identifier: Apache-2.0
// Requests of lm-evaluation-harness as token ids (written by analysis/lm_eval_export.py). File layout in
// outputs/README.md.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generation/stop_strings.h"
#include "storage/hdf5.h"

namespace amalgam {

/// Either "how likely is this continuation" or "go on greedily".
struct Request {
    std::span<const int32_t> tokens;  // the context, then the continuation if there is one
    int64_t context = 0;              // tokens of the context, at least 1
    int64_t max_new_tokens = 0;       // to generate; 0: the continuation is to be judged
    int64_t stop_set = 0;             // generation ends after a token of this set, and with a string of it
    bool generates() const { return max_new_tokens > 0; }
};

class RequestFile {
  public:
    /// Reads all. Throws Error(damaged_file) naming file and dataset.
    explicit RequestFile(const std::filesystem::path& path);

    int64_t size() const { return int64_t(context_.size()); }
    Request request(int64_t index) const;
    std::span<const int32_t> stops(int64_t set) const;
    /// Null where the set has none, or the file was written before there were any.
    const StopStrings* stop_strings(int64_t set) const;
    int64_t vocabulary_size() const { return vocabulary_size_; }  // of the tokenizer
    /// The largest of all contexts and continuations; -1 if there are none. A tokenizer may have more than its model.
    int32_t largest_token() const { return tokens_.empty() ? -1 : *std::max_element(tokens_.begin(), tokens_.end()); }
    const std::string& tokenizer_sha256() const { return tokenizer_sha256_; }
    const std::string& fingerprint() const { return fingerprint_; }  // of the requests; answers carry it

  private:
    void read_stop_strings(const H5File& file);

    std::string tokenizer_sha256_, fingerprint_;
    int64_t vocabulary_size_ = 0;
    std::vector<int32_t> tokens_, stop_tokens_;
    std::vector<int64_t> offsets_, context_, max_new_tokens_, stop_set_, stop_offsets_;
    std::unique_ptr<TokenBytes> token_bytes_;  // does not move: the strings point to it
    std::map<int64_t, StopStrings> stop_strings_;
};

}  // namespace amalgam
