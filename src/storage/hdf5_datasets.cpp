// SPDX-License-Identifier: Apache-2.0
// Datasets of H5File: making, writing, reading, listing.
#include <algorithm>
#include <optional>
#include <string_view>

#include "storage/hdf5.h"
#include "storage/hdf5_detail.h"

namespace amalgam {

using namespace hdf5_detail;

namespace {

/// A new contiguous dataset; groups on the way are made.
H5Handle make_dataset(const H5File& file, const std::string& name, hid_t type, hid_t space) {
    H5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
    H5Pset_create_intermediate_group(links.get(), 1);
    return checked(H5Dcreate2(file.id(), name.c_str(), type, space, links.get(), H5P_DEFAULT, H5P_DEFAULT), H5Dclose,
                   file.path(), name, "cannot be made", ExitCode::storage);
}

H5Handle open_dataset(const H5File& file, const std::string& name, ExitCode code) {
    return checked(H5Dopen2(file.id(), name.c_str(), H5P_DEFAULT), H5Dclose, file.path(), name, "no such dataset",
                   code);
}

std::vector<int64_t> shape_of(hid_t space) {
    const int rank = H5Sget_simple_extent_ndims(space);
    std::vector<hsize_t> sizes(static_cast<size_t>(std::max(rank, 0)));
    if (rank > 0) H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    return {sizes.begin(), sizes.end()};
}

/// The element type if it is one of ours.
std::optional<StoredType> stored_type(hid_t dataset, bool marked_bfloat16) {
    H5Handle type(H5Dget_type(dataset), H5Tclose);
    const size_t bytes = H5Tget_size(type.get());
    switch (H5Tget_class(type.get())) {
        case H5T_FLOAT:
            if (bytes == 4) return StoredType::float32;
            if (bytes == 8) return StoredType::float64;
            return std::nullopt;
        case H5T_INTEGER:
            if (H5Tget_sign(type.get()) == H5T_SGN_NONE) {
                if (bytes == 2) return marked_bfloat16 ? StoredType::bfloat16 : StoredType::uint16;
                if (bytes == 4) return StoredType::uint32;
                return std::nullopt;
            }
            if (bytes == 4) return StoredType::int32;
            if (bytes == 8) return StoredType::int64;
            return std::nullopt;
        default:
            return std::nullopt;
    }
}

std::optional<DatasetInfo> describe_numbers(const H5File& file, const std::string& name) {
    H5Handle dataset = open_dataset(file, name, ExitCode::damaged_file);
    const bool marked = file.has_attribute(name, "dtype") && file.string_attribute(name, "dtype") == "bfloat16";
    const auto type = stored_type(dataset.get(), marked);
    if (!type) return std::nullopt;
    H5Handle space(H5Dget_space(dataset.get()), H5Sclose);
    return DatasetInfo{name, *type, shape_of(space.get())};
}

/// Selects rows in the space of a dataset and returns the space of as many rows in memory.
H5Handle select_rows(hid_t space, int64_t first, int64_t count, const H5File& file, const std::string& name,
                     ExitCode code) {
    const auto shape = shape_of(space);
    if (shape.empty() || first < 0 || count < 0 || first > shape[0] || count > shape[0] - first)
        throw Error(text(file.path().string(), ": ", name, ": ", count, " rows from row ", first,
                         " on are outside of its ", shape.empty() ? 0 : shape[0], " rows"),
                    code);
    std::vector<hsize_t> start(shape.size(), 0), size(shape.begin(), shape.end());
    start[0] = static_cast<hsize_t>(first);
    size[0] = static_cast<hsize_t>(count);
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr) < 0)
        fail(file.path(), name, "its rows cannot be selected", code);
    return H5Handle(H5Screate_simple(static_cast<int>(size.size()), size.data(), nullptr), H5Sclose);
}

/// HDF5 would clip numbers that do not fit.
H5T_conv_ret_t refuse_overflow(H5T_conv_except_t kind, hid_t, hid_t, void*, void*, void*) {
    return kind == H5T_CONV_EXCEPT_RANGE_HI || kind == H5T_CONV_EXCEPT_RANGE_LOW ? H5T_CONV_ABORT : H5T_CONV_UNHANDLED;
}

bool is_integer(StoredType type) {
    return type != StoredType::float32 && type != StoredType::float64 && type != StoredType::bfloat16;
}

/// The conversions that lose no meaning: HDF5 takes bfloat16 for integers, and cuts fractions off.
void expect_convertible(const H5File& file, const DatasetInfo& info, StoredType wanted) {
    const bool same = info.type == wanted;
    const bool raw_bits = info.type == StoredType::bfloat16 && wanted == StoredType::uint16;
    const bool numbers = info.type != StoredType::bfloat16 && wanted != StoredType::bfloat16 &&
                         (is_integer(info.type) || !is_integer(wanted));
    if (!same && !raw_bits && !numbers)
        throw Error(text(file.path().string(), ": ", info.path, ": holds ", name_of(info.type), " (", name_of(wanted),
                         " is needed)"),
                    ExitCode::damaged_file);
}

void read_selected(const H5File& file, const DatasetInfo& info, hid_t dataset, StoredType type, hid_t memory_space,
                   hid_t file_space, void* data) {
    expect_convertible(file, info, type);
    H5Handle transfer(H5Pcreate(H5P_DATASET_XFER), H5Pclose);
    H5Pset_type_conv_cb(transfer.get(), refuse_overflow, nullptr);
    if (H5Dread(dataset, memory_type(type), memory_space, file_space, transfer.get(), data) < 0)
        fail(file.path(), info.path, text("cannot be read as ", name_of(type)), ExitCode::damaged_file);
}

struct Listing {
    const H5File* file;
    std::string group;
    std::vector<std::string> names;
};

/// Exceptions must not pass through HDF5, so this only collects names.
herr_t collect_dataset(hid_t, const char* name, const H5O_info_t* object, void* result) {
    auto& listing = *static_cast<Listing*>(result);
    if (object->type != H5O_TYPE_DATASET) return 0;
    const bool is_start = std::string_view(name) == ".";  // the "group" is a dataset itself
    listing.names.push_back(is_start ? listing.group : listing.group + (listing.group.back() == '/' ? "" : "/") + name);
    return 0;
}

int64_t elements_of(const DatasetInfo& info) {
    int64_t count = 1;
    for (int64_t size : info.shape) count *= size;
    return count;
}

}  // namespace

bool H5File::has(const std::string& name) const {
    if (name == "/") return true;
    // H5Lexists answers only for the last part of a path whose other parts exist. It fails in a damaged file, which
    // must not pass for one that has no such object.
    const auto exists = [&](const std::string& part) {
        const htri_t answer = H5Lexists(id(), part.c_str(), H5P_DEFAULT);
        if (answer < 0) fail(path_, part, "cannot be looked up", ExitCode::damaged_file);
        return answer > 0;
    };
    for (size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1))
        if (!exists(name.substr(0, end))) return false;
    return exists(name);
}

std::vector<DatasetInfo> H5File::list(const std::string& group) const {
    if (!has(group)) throw Error(text(path_.string(), ": ", group, ": no such group"), ExitCode::damaged_file);
    Listing listing{this, group.starts_with('/') ? group : "/" + group, {}};
#if H5_VERSION_GE(1, 12, 0)
    const herr_t status = H5Ovisit_by_name(id(), group.c_str(), H5_INDEX_NAME, H5_ITER_INC, collect_dataset, &listing,
                                           H5O_INFO_BASIC, H5P_DEFAULT);
#else
    const herr_t status =
        H5Ovisit_by_name(id(), group.c_str(), H5_INDEX_NAME, H5_ITER_INC, collect_dataset, &listing, H5P_DEFAULT);
#endif
    if (status < 0) fail(path_, group, "its datasets cannot be listed", ExitCode::damaged_file);
    std::vector<DatasetInfo> result;
    for (const auto& name : listing.names)
        if (auto info = describe_numbers(*this, name)) result.push_back(*info);
    return result;
}

DatasetInfo H5File::describe(const std::string& name) const {
    auto info = describe_numbers(*this, name);
    if (!info)
        throw Error(
            text(path_.string(), ": ", name, ": has an element type that is never written by Amalgam (float32, ",
                 "float64, int32, int64, uint16, uint32 and bfloat16 as uint16 are)"),
            ExitCode::damaged_file);
    return *info;
}

void H5File::write(const std::string& name, StoredType type, std::span<const int64_t> shape, const void* data) {
    create_dataset(name, type, shape);
    H5Handle dataset = open_dataset(*this, name, ExitCode::storage);
    const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
    if (!empty && H5Dwrite(dataset.get(), memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        fail(path_, name, "cannot be written", ExitCode::storage);
    if (!dataset.close()) fail(path_, name, "cannot be closed", ExitCode::storage);
    set_checksum(*this, name, data,
                 static_cast<size_t>(elements_of({name, type, {shape.begin(), shape.end()}})) * bytes_of(type));
}

namespace {

template <class Number>
void expect_count(const H5File& file, const std::string& name, std::span<const int64_t> shape,
                  std::span<const Number> data) {
    int64_t count = 1;
    for (int64_t size : shape) count *= size;
    if (count != static_cast<int64_t>(data.size()))
        throw Error(
            text(file.path().string(), ": ", name, ": ", data.size(), " numbers were given for a shape of ", count));
}

}  // namespace

void H5File::write(const std::string& name, std::span<const int64_t> shape, std::span<const double> data) {
    expect_count(*this, name, shape, data);
    write(name, StoredType::float64, shape, data.data());
}

void H5File::write(const std::string& name, std::span<const int64_t> shape, std::span<const int32_t> data) {
    expect_count(*this, name, shape, data);
    write(name, StoredType::int32, shape, data.data());
}

void H5File::write(const std::string& name, std::span<const int64_t> shape, std::span<const int64_t> data) {
    expect_count(*this, name, shape, data);
    write(name, StoredType::int64, shape, data.data());
}

void H5File::write(const std::string& name, const std::vector<std::string>& strings) {
    size_t width = 1;
    for (const auto& value : strings) width = std::max(width, value.size());
    std::vector<char> bytes(width * strings.size(), '\0');
    for (size_t i = 0; i < strings.size(); ++i)
        std::copy(strings[i].begin(), strings[i].end(), bytes.begin() + i * width);

    H5Handle type = fixed_string_type(width);
    const int64_t count = static_cast<int64_t>(strings.size());
    H5Handle space = make_space({&count, 1}, *this, name);
    H5Handle dataset = make_dataset(*this, name, type.get(), space.get());
    if (count > 0 && H5Dwrite(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0)
        fail(path_, name, "cannot be written", ExitCode::storage);
    if (!dataset.close()) fail(path_, name, "cannot be closed", ExitCode::storage);
    set_checksum(*this, name, bytes.data(), bytes.size());
}

void H5File::create_dataset(const std::string& name, StoredType type, std::span<const int64_t> shape) {
    H5Handle space = make_space(shape, *this, name);
    H5Handle dataset = make_dataset(*this, name, disk_type(type), space.get());
    if (!dataset.close()) fail(path_, name, "cannot be closed", ExitCode::storage);
    if (type == StoredType::bfloat16) set_attribute(name, "dtype", std::string("bfloat16"));
}

void H5File::write_rows(const std::string& name, int64_t first, int64_t count, const void* data) {
    const StoredType type = describe(name).type;
    H5Handle dataset = open_dataset(*this, name, ExitCode::storage);
    H5Handle space(H5Dget_space(dataset.get()), H5Sclose);
    H5Handle memory = select_rows(space.get(), first, count, *this, name, ExitCode::failure);
    if (count > 0 && H5Dwrite(dataset.get(), memory_type(type), memory.get(), space.get(), H5P_DEFAULT, data) < 0)
        fail(path_, name, text("rows ", first, " to ", first + count, " cannot be written"), ExitCode::storage);
    if (!dataset.close()) fail(path_, name, "cannot be closed", ExitCode::storage);
}

void H5File::read_rows(const std::string& name, StoredType type, int64_t first, int64_t count, void* data) const {
    const DatasetInfo info = describe(name);
    H5Handle dataset = open_dataset(*this, name, ExitCode::damaged_file);
    H5Handle space(H5Dget_space(dataset.get()), H5Sclose);
    H5Handle memory = select_rows(space.get(), first, count, *this, name, ExitCode::damaged_file);
    if (count > 0) read_selected(*this, info, dataset.get(), type, memory.get(), space.get(), data);
}

void H5File::read(const std::string& name, StoredType type, void* data) const {
    const DatasetInfo info = describe(name);
    H5Handle dataset = open_dataset(*this, name, ExitCode::damaged_file);
    if (elements_of(info) == 0) return;
    const size_t bytes = static_cast<size_t>(elements_of(info)) * bytes_of(info.type);
    if (type != info.type && has_checksum(*this, name)) {  // it is that of the stored type
        std::vector<char> stored(bytes);
        read_selected(*this, info, dataset.get(), info.type, H5S_ALL, H5S_ALL, stored.data());
        expect_checksum(*this, name, stored.data(), bytes);
    }
    read_selected(*this, info, dataset.get(), type, H5S_ALL, H5S_ALL, data);
    if (type == info.type) expect_checksum(*this, name, data, bytes);
}

std::vector<double> H5File::read_doubles(const std::string& name) const {
    std::vector<double> result(static_cast<size_t>(elements_of(describe(name))));
    read(name, StoredType::float64, result.data());
    return result;
}

std::vector<int64_t> H5File::read_integers(const std::string& name) const {
    std::vector<int64_t> result(static_cast<size_t>(elements_of(describe(name))));
    read(name, StoredType::int64, result.data());
    return result;
}

std::vector<std::string> H5File::read_strings(const std::string& name) const {
    H5Handle dataset = open_dataset(*this, name, ExitCode::damaged_file);
    H5Handle type(H5Dget_type(dataset.get()), H5Tclose);
    H5Handle space(H5Dget_space(dataset.get()), H5Sclose);
    bool failed = false;
    auto result = read_string_elements(
        type.get(), space.get(),
        [&](hid_t as, void* buffer) {
            const herr_t status = H5Dread(dataset.get(), as, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer);
            const bool fixed = H5Tis_variable_str(as) == 0;
            const hssize_t count = H5Sget_simple_extent_npoints(space.get());
            if (status >= 0 && fixed)
                expect_checksum(*this, name, buffer, H5Tget_size(as) * static_cast<size_t>(count));
            return status;
        },
        failed);
    if (failed) fail(path_, name, "cannot be read as strings", ExitCode::damaged_file);
    return result;
}

}  // namespace amalgam
