// SPDX-License-Identifier: Apache-2.0
#include "storage/hdf5_detail.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace amalgam {

size_t bytes_of(StoredType type) {
    switch (type) {
        case StoredType::bfloat16:
        case StoredType::uint16:
            return 2;
        case StoredType::float32:
        case StoredType::int32:
        case StoredType::uint32:
            return 4;
        case StoredType::float64:
        case StoredType::int64:
            return 8;
    }
    throw std::logic_error("unknown StoredType");
}

namespace hdf5_detail {

namespace {

struct Explanation {
    std::string first, last;  // what was asked for, and what went wrong at the bottom
};

herr_t collect(unsigned, const H5E_error2_t* entry, void* result) {
    auto& explanation = *static_cast<Explanation*>(result);
    std::string description = entry->desc != nullptr ? entry->desc : "";
    std::replace(description.begin(), description.end(), '\n', ' ');  // in the dates of some
    if (explanation.first.empty()) explanation.first = description;
    explanation.last = description;
    return 0;
}

std::string explain() {
    Explanation found;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, collect, &found);
    H5Eclear2(H5E_DEFAULT);
    if (found.first.empty()) return "no explanation by HDF5";
    return found.first == found.last ? found.first : found.first + ", because: " + found.last;
}

}  // namespace

void prepare_library() {
    static const bool done = [] {
        H5dont_atexit();
        H5open();
        H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
        return true;
    }();
    static_cast<void>(done);
}

void fail(const std::filesystem::path& file, const std::string& object, const std::string& problem, ExitCode code) {
    const std::string where = object.empty() ? file.string() : file.string() + ": " + object;
    throw Error(text(where, ": ", problem, " (", explain(), ")"), code);
}

H5Handle checked(hid_t id, H5Handle::Close close, const std::filesystem::path& file, const std::string& object,
                 const std::string& problem, ExitCode code) {
    if (id < 0) fail(file, object, problem, code);
    return H5Handle(id, close);
}

hid_t memory_type(StoredType type) {
    switch (type) {
        case StoredType::float32:
            return H5T_NATIVE_FLOAT;
        case StoredType::float64:
            return H5T_NATIVE_DOUBLE;
        case StoredType::int32:
            return H5T_NATIVE_INT32;
        case StoredType::int64:
            return H5T_NATIVE_INT64;
        case StoredType::bfloat16:
        case StoredType::uint16:
            return H5T_NATIVE_UINT16;
        case StoredType::uint32:
            return H5T_NATIVE_UINT32;
    }
    throw std::logic_error("unknown StoredType");
}

hid_t disk_type(StoredType type) {
    switch (type) {
        case StoredType::float32:
            return H5T_IEEE_F32LE;
        case StoredType::float64:
            return H5T_IEEE_F64LE;
        case StoredType::int32:
            return H5T_STD_I32LE;
        case StoredType::int64:
            return H5T_STD_I64LE;
        case StoredType::bfloat16:
        case StoredType::uint16:
            return H5T_STD_U16LE;
        case StoredType::uint32:
            return H5T_STD_U32LE;
    }
    throw std::logic_error("unknown StoredType");
}

const char* name_of(StoredType type) {
    switch (type) {
        case StoredType::float32:
            return "float32";
        case StoredType::float64:
            return "float64";
        case StoredType::int32:
            return "int32";
        case StoredType::int64:
            return "int64";
        case StoredType::bfloat16:
            return "bfloat16";
        case StoredType::uint16:
            return "uint16";
        case StoredType::uint32:
            return "uint32";
    }
    throw std::logic_error("unknown StoredType");
}

H5Handle make_space(std::span<const int64_t> shape, const H5File& file, const std::string& name) {
    std::vector<hsize_t> sizes;
    for (int64_t size : shape) {
        if (size < 0) throw Error(text(file.path().string(), ": ", name, ": negative size ", size, " in the shape"));
        sizes.push_back(static_cast<hsize_t>(size));
    }
    const hid_t space =
        sizes.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
    return checked(space, H5Sclose, file.path(), name, "its shape was refused", ExitCode::storage);
}

H5Handle one_header_properties(hid_t property_class) {
    constexpr unsigned all = 65535;
    H5Handle properties(H5Pcreate(property_class), H5Pclose);
    H5Pset_attr_phase_change(properties.get(), all, 0);
    H5Pset_link_phase_change(properties.get(), all, 0);
    H5Pset_obj_track_times(properties.get(), false);
    return properties;
}

H5Handle fixed_string_type(size_t bytes) {
    H5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type.get(), bytes > 0 ? bytes : 1);  // HDF5 has no strings of length zero
    H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
    H5Tset_cset(type.get(), H5T_CSET_UTF8);
    return type;
}

std::vector<std::string> read_string_elements(hid_t type, hid_t space,
                                              const std::function<herr_t(hid_t type, void* buffer)>& read,
                                              bool& failed) {
    std::vector<std::string> result;
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    failed = count < 0 || H5Tget_class(type) != H5T_STRING;
    if (failed || count == 0) return result;

    if (H5Tis_variable_str(type) > 0) {
        std::vector<char*> pointers(static_cast<size_t>(count), nullptr);
        failed = read(type, pointers.data()) < 0;
        if (failed) return result;
        for (const char* pointer : pointers) result.emplace_back(pointer != nullptr ? pointer : "");
        H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
        return result;
    }

    const size_t width = H5Tget_size(type);
    std::vector<char> buffer(width * static_cast<size_t>(count));
    failed = read(type, buffer.data()) < 0;
    if (failed) return result;
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        const char* begin = buffer.data() + i * width;
        result.emplace_back(begin, strnlen(begin, width));
    }
    return result;
}

}  // namespace hdf5_detail
}  // namespace amalgam
