// SPDX-License-Identifier: Apache-2.0
#include "app/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam {

void expect_place_for(const std::string& out, const std::string& filetype) {
    std::error_code unreadable;
    const std::filesystem::path path = out, parent = path.parent_path(), folder = parent.empty() ? "." : parent;
    require(path.has_filename(), "--out: \"", out, "\" names no file (the result is one file); give its name");
    require(std::filesystem::is_directory(folder, unreadable), "--out: ", folder.string(), " is not a folder (", out,
            " could not be written in the end); make it, or name another file");
    require(access(folder.c_str(), W_OK | X_OK) == 0, "--out: ", folder.string(), ": no file can be made there (",
            std::strerror(errno), "); name another file");
    if (!std::filesystem::exists(path, unreadable)) return;
    require(!filetype.empty(), "--out: ", out, " is there already (it would be lost) name another file");
    std::string found = "no file of the program";
    try {
        const H5File file = H5File::open(path);
        if (file.has_attribute("/", "filetype")) found = file.string_attribute("/", "filetype");
    } catch (const Error&) {  // not HDF5
    }
    require(found == filetype, "--out: ", out, " is there already and holds something else (", found,
            "; it would be lost) name another file");
}

}  // namespace amalgam
