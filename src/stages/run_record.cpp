// SPDX-License-Identifier: Apache-2.0
#include "stages/run_record.h"

#include <fstream>
#include <iterator>
#include <string>

#include "job/job_reader.h"
#include "job/job_writer.h"
#include "storage/write_once.h"
#include "system/error.h"
#include "system/sha256.h"

namespace amalgam {
namespace {

const std::string seal = "# SHA-256 of the lines above: ";

}  // namespace

void write_record(const std::filesystem::path& path, const Job& job) {
    const std::string lines = to_yaml(job);
    write_text_once(path, lines + seal + sha256(lines) + "\n");
}

Job read_record(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    const size_t end = all.rfind(seal);
    const bool sealed = end != std::string::npos && all.substr(end) == seal + sha256(all.substr(0, end)) + "\n";
    // Runs of earlier versions have no seal.
    const bool earlier =
        end == std::string::npos && !all.empty() && !std::filesystem::exists(path.parent_path() / "inputs.json");
    if (!sealed && !earlier)
        throw Error(text(path.string(),
                         ": is damaged or was edited (it is the record of what the run is made by); "
                         "restore it, or remove it if you are sure that your job file is the same: it is then written "
                         "again"),
                    ExitCode::damaged_file);
    return read_resolved_job(path);
}

}  // namespace amalgam
