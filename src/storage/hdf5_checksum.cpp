// SPDX-License-Identifier: Apache-2.0
// The attribute crc32 of datasets: written with them, compared when the whole of one is read.
#include "storage/checksum.h"
#include "storage/hdf5_detail.h"

namespace amalgam::hdf5_detail {

namespace {

constexpr const char* attribute = "crc32";

}  // namespace

void set_checksum(H5File& file, const std::string& dataset, const void* data, size_t bytes) {
    file.set_attribute(dataset, attribute, int64_t{crc32_of(data, static_cast<int64_t>(bytes))});
}

bool has_checksum(const H5File& file, const std::string& dataset) {
    return file.has_attribute(dataset, attribute);
}

void expect_checksum(const H5File& file, const std::string& dataset, const void* data, size_t bytes) {
    if (!has_checksum(file, dataset)) return;  // of an older version, or not ours
    if (int64_t{crc32_of(data, static_cast<int64_t>(bytes))} == file.integer_attribute(dataset, attribute)) return;
    throw Error(text(file.path().string(), ": ", dataset,
                     ": does not match its checksum (the file is damaged); bring it back from a copy, or remove it to "
                     "have it made again"),
                ExitCode::damaged_file);
}

}  // namespace amalgam::hdf5_detail
