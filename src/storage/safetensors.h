// SPDX-License-Identifier: Apache-2.0
// Reads and writes safetensors files and folders of them (with model.safetensors.index.json). A header is never
// trusted: its size, its JSON, dtypes, shapes and byte ranges are checked against the file before anything is read.
// Format: 8 bytes little-endian header length, JSON {name: {dtype, shape, data_offsets}}, then the data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace amalgam {

/// `other`: a type of the format that no model here has weights of (integers of other widths, float8, complex numbers).
enum class SafetensorsType { f32, f16, bf16, f64, i64, i32, other };
/// Of an element. Throws std::logic_error for `other`.
size_t bytes_of(SafetensorsType type);

struct SafetensorsEntry {
    std::filesystem::path file;
    SafetensorsType type;
    std::string dtype;  // as the file names it
    std::vector<int64_t> shape;
    int64_t offset;  // bytes from the start of the file
    int64_t bytes;
};

/// All tensors of one file. Throws Error(damaged_file) naming file and tensor.
std::map<std::string, SafetensorsEntry> read_safetensors_header(const std::filesystem::path& file);

/// All tensors of a model folder: model.safetensors, or the shards its index names.
std::map<std::string, SafetensorsEntry> read_safetensors_folder(const std::filesystem::path& folder);

/// Reads the bytes of one tensor with pread into `destination` (entry.bytes long).
void read_tensor_bytes(const SafetensorsEntry& entry, void* destination);

/// Writes the tensors of a model folder one after the other: model.safetensors, or, where they have more than
/// `shard_bytes`, several files of at most so many (a larger tensor has one to itself) with an index. Holds the tensors
/// of one file in memory. Every file appears whole, under its name only when all have been written.
class SafetensorsWriter {
  public:
    explicit SafetensorsWriter(std::filesystem::path folder, int64_t shard_bytes = int64_t{4} << 30);
    /// Removes what was written unless publish() has succeeded.
    ~SafetensorsWriter();
    SafetensorsWriter(const SafetensorsWriter&) = delete;
    SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

    /// `data`: contiguous; copied. Throws Error for a name that was there before or is reserved, and for shapes that
    /// have no size; Error(storage).
    void add(const std::string& name, SafetensorsType type, const std::vector<int64_t>& shape, const void* data);

    /// Writes the rest, into the folder that is made if need be. Throws Error(storage).
    void finish();
    /// All tensors as they lie in files without a final name, after finish(): for those who look before they publish.
    std::map<std::string, SafetensorsEntry> written() const;
    /// Gives the files their names, after finish().
    void publish();

  private:
    struct Tensor {
        std::string name;
        SafetensorsType type;
        std::vector<int64_t> shape;
        std::vector<char> bytes;
    };
    std::filesystem::path temporary(size_t shard) const;
    void write_shard();

    std::filesystem::path folder_;
    int64_t shard_bytes_, held_bytes_ = 0, total_bytes_ = 0;
    std::set<std::string> names_;
    std::vector<Tensor> held_;                      // of the file that comes next
    std::vector<std::vector<std::string>> shards_;  // names of the tensors in those that are written
};

}  // namespace amalgam
