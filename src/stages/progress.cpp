// SPDX-License-Identifier: Apache-2.0
#include "stages/progress.h"

#include <fstream>

#include "storage/write_once.h"

namespace amalgam {

namespace fs = std::filesystem;

Progress::Progress(fs::path run_folder) : folder_(std::move(run_folder)), before_(results()) {}

int64_t Progress::starts_without() const {
    const fs::path file = folder_ / "stalled";
    std::error_code ignored;
    if (results() != before_) {
        fs::remove(file, ignored);
        return 0;
    }
    int64_t starts = 0;
    std::ifstream(file) >> starts;
    write_text_once(file, std::to_string(++starts) + "\n");
    return starts;
}

void Progress::forget() const {
    std::error_code ignored;
    fs::remove(folder_ / "stalled", ignored);
}

/// Names are enough: those of checkpoints and candidates have a number, and files are written once.
std::set<std::string> Progress::results() const {
    std::set<std::string> names;
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(folder_, ignored))
        if (entry.path().extension() == ".h5" || entry.path().filename() == "config.json")
            names.insert(entry.path().string());
    return names;
}

}  // namespace amalgam
