// SPDX-License-Identifier: Apache-2.0
// What the parts of hdf5.h's implementation share: errors with HDF5's own explanation in them, and element types.
#pragma once

#include <string>

#include "storage/hdf5.h"
#include "system/error.h"

namespace amalgam::hdf5_detail {

/// Keeps HDF5 from printing its errors (they go into our exceptions), and from cleaning up when the process exits,
/// where it crashes if a file could not be closed. To be called before any other HDF5 function.
void prepare_library();

/// Throws an Error that names `file` and `object`, tells what could not be done and why HDF5 says so.
[[noreturn]] void fail(const std::filesystem::path& file, const std::string& object, const std::string& problem,
                       ExitCode code);

/// `id` as a handle, or fail() if it is negative.
H5Handle checked(hid_t id, H5Handle::Close close, const std::filesystem::path& file, const std::string& object,
                 const std::string& problem, ExitCode code);

/// The native HDF5 type of one element in memory; ours on disk are the little-endian ones.
hid_t memory_type(StoredType type);
hid_t disk_type(StoredType type);
const char* name_of(StoredType type);

/// Gives a dataset the CRC-32 of its bytes, little-endian as they lie on disk.
void set_checksum(H5File& file, const std::string& dataset, const void* data, size_t bytes);
bool has_checksum(const H5File& file, const std::string& dataset);
/// Throws Error(damaged_file) if the dataset has a checksum and these bytes, the whole of it, another one.
void expect_checksum(const H5File& file, const std::string& dataset, const void* data, size_t bytes);

/// A space of this shape; scalar if there are no sizes.
H5Handle make_space(std::span<const int64_t> shape, const H5File& file, const std::string& name);

/// Creation properties of a group or file (its root group): attributes and links stay in the object's header, however
/// many there are. HDF5 1.10.8 crashes in MPI_Finalize if a full disk did not take the separate storage that it would
/// otherwise use for many. No times are stored, so that equal content has equal bytes.
H5Handle one_header_properties(hid_t property_class);

/// A string type of `bytes` bytes, UTF-8, padded with zeros.
H5Handle fixed_string_type(size_t bytes);

/// One or many strings, of fixed or variable length, of a dataset or an attribute. `read` fills a buffer of the type
/// that it is given.
std::vector<std::string> read_string_elements(hid_t type, hid_t space,
                                              const std::function<herr_t(hid_t type, void* buffer)>& read,
                                              bool& failed);

}  // namespace amalgam::hdf5_detail
