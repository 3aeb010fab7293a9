// SPDX-License-Identifier: Apache-2.0
#include "system/provenance.h"

#include <unistd.h>

#include <algorithm>
#include <boost/version.hpp>
#include <cstdlib>

#include "git_sha.h"  // written at build time by git_sha.cmake
#include "system/clock.h"
#include "system/error.h"

namespace amalgam {

namespace {

std::string compiler() {
#if defined(__clang__)
    return text("Clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#elif defined(__GNUC__)
    return text("GCC ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#else
    return "unknown compiler";
#endif
}

struct Known {
    std::string command_line;
    std::vector<std::string> libraries = {
        compiler(), text("Boost ", BOOST_VERSION / 100000, ".", BOOST_VERSION / 100 % 1000, ".", BOOST_VERSION % 100)};
};

Known& known() {
    static Known the_known;
    return the_known;
}

/// As a shell would have to be given it.
std::string quoted(const std::string& argument) {
    static const char* plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
    if (!argument.empty() && argument.find_first_not_of(plain) == std::string::npos) return argument;
    std::string result = "'";
    for (char c : argument) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return result + "'";
}

std::string scheduler_job() {
    for (const char* name : {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID"})
        if (const char* value = std::getenv(name)) return value;
    return "";
}

}  // namespace

void set_command_line(int argc, const char* const* argv) {
    std::string& line = known().command_line;
    line.clear();
    for (int i = 0; i < argc; ++i) line += (i > 0 ? " " : "") + quoted(argv[i]);
}

void report_library(const std::string& name_and_version) {
    auto& libraries = known().libraries;
    if (std::find(libraries.begin(), libraries.end(), name_and_version) == libraries.end())
        libraries.push_back(name_and_version);
}

Provenance provenance() {
    Provenance result;
    result.software_version = AMALGAM_VERSION;
    result.git_sha = AMALGAM_GIT_SHA;
    result.date = date_now();
    result.machine = host_name();
    result.job_id = scheduler_job();
    result.command_line = known().command_line;
    for (const auto& library : known().libraries) result.libraries += (result.libraries.empty() ? "" : "; ") + library;
    return result;
}

std::string host_name() {
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "unknown";
    return name;
}

std::string version() {
    return text("amalgam ", AMALGAM_VERSION, " (", AMALGAM_GIT_SHA, ")");
}

}  // namespace amalgam
