// SPDX-License-Identifier: Apache-2.0
// A folder for the files of one test, removed with all of them.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "system/error.h"

namespace amalgam::test {

class TemporaryFolder : public testing::Test {
  protected:
    TemporaryFolder() {
        std::string pattern = testing::TempDir() + "amalgam-XXXXXX";
        if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder: " + pattern);
        folder = pattern;
    }
    ~TemporaryFolder() override {
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }

    std::filesystem::path folder;
};

inline std::string content_of(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

inline void put(const std::filesystem::path& path, const std::string& content) {
    std::ofstream stream(path, std::ios::binary);
    stream << content;
    if (!stream.flush()) throw std::runtime_error("cannot write " + path.string());
}

/// Temporary files of `path` that are there (storage/write_once.h).
inline std::vector<std::filesystem::path> temporaries_of(const std::filesystem::path& path) {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(path.parent_path())) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with(path.filename().string() + ".") && name.ends_with(".tmp")) found.push_back(entry.path());
    }
    return found;
}

/// Expects an Error of this code whose text contains all of `parts`.
inline void expect_error(const std::function<void()>& action, ExitCode code, std::initializer_list<std::string> parts) {
    try {
        action();
        ADD_FAILURE() << "no exception";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), code) << error.what();
        for (const auto& part : parts)
            EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
                << "\"" << part << "\" is missing in: " << error.what();
    }
}

}  // namespace amalgam::test
