// SPDX-License-Identifier: Apache-2.0
// A file of requests as analysis/lm_eval_export.py writes them, with whatever a test wants in it.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "storage/hdf5.h"

namespace amalgam::test {

struct RequestContents {
    int64_t vocabulary;
    std::vector<int32_t> tokens = {}, stop_tokens = {3, 7, 60};
    std::vector<int64_t> offsets = {0}, context = {}, max_new_tokens = {}, stop_set = {};
    std::vector<int64_t> stop_offsets = {0, 0, 3};  // set 0 stops nowhere, set 1 after any of the stop tokens
    std::vector<std::string> token_bytes = {}, stop_strings = {};
    std::vector<int64_t> stop_string_set = {};

    void add(const std::vector<int32_t>& request, int64_t context_tokens, int64_t new_tokens, int64_t stops) {
        tokens.insert(tokens.end(), request.begin(), request.end());
        offsets.push_back(int64_t(tokens.size()));
        context.push_back(context_tokens);
        max_new_tokens.push_back(new_tokens);
        stop_set.push_back(stops);
    }

    void write(const std::filesystem::path& path) const {
        write_h5_once(path, [&](H5File& file) {
            file.describe_file("amalgam requests", Provenance{});
            file.set_attribute("/", "vocabulary_size", vocabulary);
            file.set_attribute("/", "tokenizer_sha256", std::string("none"));
            file.set_attribute("/", "fingerprint", std::string("of these requests"));
            const auto wide = [&](const char* name, const std::vector<int64_t>& values) {
                file.write(name, std::vector<int64_t>{int64_t(values.size())}, std::span<const int64_t>(values));
            };
            const auto narrow = [&](const char* name, const std::vector<int32_t>& values) {
                file.write(name, std::vector<int64_t>{int64_t(values.size())}, std::span<const int32_t>(values));
            };
            narrow("/tokens", tokens);
            narrow("/stop_tokens", stop_tokens);
            wide("/offsets", offsets);
            wide("/context_tokens", context);
            wide("/max_new_tokens", max_new_tokens);
            wide("/stop_set", stop_set);
            wide("/stop_offsets", stop_offsets);
            if (stop_strings.empty()) return;
            const auto bytes = [&](const std::string& name, const std::string& offsets,
                                   const std::vector<std::string>& strings) {
                std::vector<uint16_t> all;
                std::vector<int64_t> starts = {0};
                for (const std::string& string : strings) {
                    for (const char c : string) all.push_back(uint8_t(c));
                    starts.push_back(int64_t(all.size()));
                }
                file.write(name, StoredType::uint16, std::vector<int64_t>{int64_t(all.size())}, all.data());
                wide(offsets.c_str(), starts);
            };
            bytes("/token_bytes", "/token_byte_offsets", token_bytes);
            bytes("/stop_strings", "/stop_string_offsets", stop_strings);
            wide("/stop_string_set", stop_string_set);
        });
    }
};

}  // namespace amalgam::test
