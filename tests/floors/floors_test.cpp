// SPDX-License-Identifier: Apache-2.0
// The house stands: no file includes one of a floor above it (src/floors.txt has their order), and within a floor no
// subfolder includes another. With one include folder for all of src/, the compiler would let both pass.
#include <fnmatch.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "../storage/temporary_folder.h"

namespace amalgam::test {
namespace {

namespace fs = std::filesystem;

class Floors {
  public:
    explicit Floors(fs::path source) : source_(std::move(source)) {
        std::ifstream list(source_ / "floors.txt");
        for (std::string line; std::getline(list, line);) {
            if (line.empty() || line[0] == '#') continue;
            std::istringstream words(line);
            Floor floor;
            words >> floor.name;
            for (std::string pattern; words >> pattern;) floor.patterns.push_back(pattern);
            floors_.push_back(floor);
        }
    }

    /// What is wrong, one line for each include or file; `read` counts the includes that were looked at.
    std::vector<std::string> violations(int64_t& read) const {
        std::vector<std::string> wrong;
        for (const auto& entry : fs::recursive_directory_iterator(source_)) {
            const std::string extension = entry.path().extension();
            if (extension != ".h" && extension != ".cpp") continue;
            const std::string file = fs::relative(entry.path(), source_);
            if (floor_of(file) < 0) wrong.push_back(file + ": is on no floor of floors.txt");
            for (const std::string& included : includes_of(entry.path())) {
                ++read;
                const std::string problem = problem_of(file, included);
                if (!problem.empty()) wrong.push_back(file + ": includes " + included + ", " + problem);
            }
        }
        return wrong;
    }

  private:
    struct Floor {
        std::string name;
        std::vector<std::string> patterns;
    };

    static std::vector<std::string> includes_of(const fs::path& file) {
        static const std::regex include("^\\s*#\\s*include\\s*\"([^\"]+)\"");
        std::vector<std::string> found;
        std::ifstream stream(file);
        std::smatch match;
        for (std::string line; std::getline(stream, line);)
            if (std::regex_search(line, match, include)) found.push_back(match[1]);
        return found;
    }

    int floor_of(const std::string& file) const {
        for (size_t i = 0; i < floors_.size(); ++i)
            for (const std::string& pattern : floors_[i].patterns)
                if (fnmatch(pattern.c_str(), file.c_str(), 0) == 0) return int(i);
        return -1;
    }

    /// "gated_delta_net" of "mixers/gated_delta_net/gated_delta_net.h"; empty for files of the floor itself.
    static std::string subfolder_of(const std::string& file) {
        const size_t first = file.find('/'), second = file.find('/', first + 1);
        return second == std::string::npos ? "" : file.substr(first + 1, second - first - 1);
    }

    std::string problem_of(const std::string& file, const std::string& included) const {
        // Kernels lie below the house; a name without a folder is a file that the build makes.
        if (included.starts_with("kernels/") || included.find('/') == std::string::npos) return "";
        if (!fs::exists(source_ / included)) return "which is no file of src/";
        const int from = floor_of(file), to = floor_of(included);
        if (to > from) return "which is above it: " + floors_[size_t(to)].name;
        const std::string here = subfolder_of(file), there = subfolder_of(included);
        if (to == from && !there.empty() && !here.empty() && here != there) return "which is beside it: " + there;
        return "";
    }

    fs::path source_;
    std::vector<Floor> floors_;
};

std::vector<std::string> violations_of(const fs::path& source) {
    int64_t read = 0;
    return Floors(source).violations(read);
}

void append(const fs::path& file, const std::string& line) {
    ASSERT_TRUE(fs::exists(file)) << file;
    std::ofstream(file, std::ios::app) << line << '\n';
}

/// A copy of src/ in which one thing is wrong.
class SpoiltHouse : public TemporaryFolder {
  protected:
    SpoiltHouse() { fs::copy(fs::path(AMALGAM_ROOT) / "src", folder / "src", fs::copy_options::recursive); }
};

TEST(Floors, no_include_goes_upwards_or_sideways) {
    int64_t read = 0;
    EXPECT_EQ(Floors(fs::path(AMALGAM_ROOT) / "src").violations(read), std::vector<std::string>());
    EXPECT_GT(read, 500);
}

TEST_F(SpoiltHouse, an_include_that_is_added_upwards_is_found) {
    ASSERT_TRUE(violations_of(folder / "src").empty());
    append(folder / "src/system/clock.h", "#include \"app/pipeline.h\"");
    EXPECT_EQ(violations_of(folder / "src"),
              std::vector<std::string>({"system/clock.h: includes app/pipeline.h, which is above it: app"}));
}

TEST_F(SpoiltHouse, an_include_that_is_added_sideways_is_found) {
    append(folder / "src/mixers/gated_delta_net/gated_delta_net.cpp",
           "#include \"mixers/gated_linear_attention/gated_linear_attention.h\"");
    const auto found = violations_of(folder / "src");
    ASSERT_EQ(found.size(), 1);
    EXPECT_NE(found[0].find("which is beside it: gated_linear_attention"), std::string::npos) << found[0];
}

TEST_F(SpoiltHouse, a_file_on_no_floor_is_found) {
    fs::create_directory(folder / "src/attic");
    std::ofstream(folder / "src/attic/box.h") << "#pragma once\n";
    EXPECT_EQ(violations_of(folder / "src"), std::vector<std::string>({"attic/box.h: is on no floor of floors.txt"}));
}

TEST(Floors, kernels_know_nothing_of_the_house) {
    int64_t read = 0;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(AMALGAM_ROOT) / "kernels")) {
        if (!entry.is_regular_file()) continue;
        std::ifstream stream(entry.path());
        for (std::string line; std::getline(stream, line);) {
            if (!line.starts_with("#include \"")) continue;
            ++read;
            EXPECT_TRUE(line.starts_with("#include \"kernels/")) << entry.path() << ": " << line;
        }
    }
    EXPECT_GT(read, 100);
}

}  // namespace
}  // namespace amalgam::test
