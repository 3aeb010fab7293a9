// SPDX-License-Identifier: Apache-2.0
// HDF5 files: handles that close themselves, datasets of plain numbers, attributes, dimension scales. Errors become
// Error(damaged_file) or Error(storage) with file and dataset in the text. All functions are serial: one process
// writes.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "system/provenance.h"

namespace amalgam {

/// Owns one hid_t; closes it with the function that fits its kind. Move-only.
class H5Handle {
  public:
    using Close = herr_t (*)(hid_t);
    H5Handle() = default;
    H5Handle(hid_t id, Close close) : id_(id), close_(close) {}
    H5Handle(H5Handle&& other) noexcept;
    H5Handle& operator=(H5Handle&& other) noexcept;
    ~H5Handle();
    hid_t get() const { return id_; }
    explicit operator bool() const { return id_ >= 0; }
    /// Closes now; false if HDF5 reported an error (a full disk may show only here).
    bool close();

  private:
    hid_t id_ = -1;
    Close close_ = nullptr;
};

/// Element types we store. bfloat16 lies on disk as uint16 with attribute dtype = "bfloat16".
enum class StoredType { float32, float64, bfloat16, int32, int64, uint16, uint32 };
size_t bytes_of(StoredType type);

struct DatasetInfo {
    std::string path;
    StoredType type;
    std::vector<int64_t> shape;
};

class H5File {
  public:
    /// A new file (must not exist) / an existing one, read only (Error(bad_input) if there is none).
    static H5File create(const std::filesystem::path& path);
    static H5File open(const std::filesystem::path& path);
    /// An existing one to be changed. Throws Error(storage).
    static H5File update(const std::filesystem::path& path);

    const std::filesystem::path& path() const { return path_; }
    hid_t id() const { return file_.get(); }

    bool has(const std::string& name) const;
    /// All datasets of numbers below `group`, in order of names; paths are absolute.
    std::vector<DatasetInfo> list(const std::string& group = "/") const;
    DatasetInfo describe(const std::string& name) const;

    /// Contiguous dataset of `shape` (groups on the way are made); `data` holds the whole of it, row-major. Its
    /// attribute crc32 is the CRC-32 of its bytes: whoever reads the whole dataset here compares it, and a difference
    /// is an Error(damaged_file) naming file and dataset.
    void write(const std::string& name, StoredType type, std::span<const int64_t> shape, const void* data);
    void write(const std::string& name, std::span<const int64_t> shape, std::span<const double> data);
    void write(const std::string& name, std::span<const int64_t> shape, std::span<const int32_t> data);
    void write(const std::string& name, std::span<const int64_t> shape, std::span<const int64_t> data);
    void write(const std::string& name, const std::vector<std::string>& strings);  // fixed-length UTF-8

    /// Empty dataset to be filled by write_rows, without a checksum. First dimension counts rows.
    void create_dataset(const std::string& name, StoredType type, std::span<const int64_t> shape);
    /// Contiguous dataset whose space in the file is set aside but not filled. Returns its offset in bytes, to which
    /// others may write once the file is closed; -1 if it has no elements.
    int64_t reserve(const std::string& name, StoredType type, std::span<const int64_t> shape);
    /// Offset of a contiguous dataset; -1 if it has none, being empty, compact, chunked or compressed.
    int64_t offset_of(const std::string& name) const;
    /// Rows [first, first + count) of the first dimension.
    void write_rows(const std::string& name, int64_t first, int64_t count, const void* data);
    /// Same for reading, converting from the stored type to `type`. Numbers that do not fit, floats read as integers
    /// and bfloat16 read as anything but itself (or its bits as uint16) are an Error(damaged_file).
    void read_rows(const std::string& name, StoredType type, int64_t first, int64_t count, void* data) const;
    /// The whole dataset.
    void read(const std::string& name, StoredType type, void* data) const;
    std::vector<double> read_doubles(const std::string& name) const;
    std::vector<int64_t> read_integers(const std::string& name) const;
    std::vector<std::string> read_strings(const std::string& name) const;

    /// Attributes of `object` ("/" for the root).
    void set_attribute(const std::string& object, const std::string& name, const std::string& value);
    void set_attribute(const std::string& object, const std::string& name, int64_t value);
    bool has_attribute(const std::string& object, const std::string& name) const;
    std::string string_attribute(const std::string& object, const std::string& name) const;
    int64_t integer_attribute(const std::string& object, const std::string& name) const;

    /// Makes `scale` a dimension scale and attaches it to dimension `dimension` of `dataset`.
    void attach_scale(const std::string& dataset, int dimension, const std::string& scale);

    /// Root attributes: filetype, format_version [version, minor], and all of `provenance`.
    void describe_file(const std::string& filetype, const Provenance& provenance, int32_t version = 1,
                       int32_t minor = 0);
    /// Throws Error(damaged_file) unless the root says so and the major version is from `oldest` to `newest`.
    void expect_filetype(const std::string& filetype, int32_t newest = 1, int32_t oldest = 1) const;

    /// Flush and close; throws Error(storage). The destructor closes too, silently.
    void close();

  private:
    H5File(std::filesystem::path path, H5Handle file) : path_(std::move(path)), file_(std::move(file)) {}
    std::filesystem::path path_;
    H5Handle file_;
};

/// write_once + H5File::create + close: `fill` writes the contents.
void write_h5_once(const std::filesystem::path& path, const std::function<void(H5File&)>& fill);

}  // namespace amalgam
