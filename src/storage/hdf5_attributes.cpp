// SPDX-License-Identifier: Apache-2.0
// Attributes and dimension scales of H5File.
#include <hdf5_hl.h>

#include "storage/hdf5.h"
#include "storage/hdf5_detail.h"

namespace amalgam {

using namespace hdf5_detail;

namespace {

std::string attribute(const std::string& name) {
    return "attribute " + name;
}

/// One value; an older attribute of that name is replaced.
void write_attribute(const H5File& file, const std::string& object, const std::string& name, hid_t disk, hid_t memory,
                     const void* value) {
    const auto& path = file.path();
    const htri_t exists = H5Aexists_by_name(file.id(), object.c_str(), name.c_str(), H5P_DEFAULT);
    if (exists < 0) fail(path, object, attribute(name) + " cannot be looked up", ExitCode::storage);
    if (exists > 0 && H5Adelete_by_name(file.id(), object.c_str(), name.c_str(), H5P_DEFAULT) < 0)
        fail(path, object, attribute(name) + " cannot be replaced", ExitCode::storage);
    H5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    H5Handle made = checked(H5Acreate_by_name(file.id(), object.c_str(), name.c_str(), disk, space.get(), H5P_DEFAULT,
                                              H5P_DEFAULT, H5P_DEFAULT),
                            H5Aclose, path, object, attribute(name) + " cannot be made", ExitCode::storage);
    if (H5Awrite(made.get(), memory, value) < 0)
        fail(path, object, attribute(name) + " cannot be written", ExitCode::storage);
}

struct OpenAttribute {
    H5Handle attribute, type, space;
};

OpenAttribute open_attribute(const H5File& file, const std::string& object, const std::string& name) {
    OpenAttribute result;
    result.attribute = checked(H5Aopen_by_name(file.id(), object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                               H5Aclose, file.path(), object, attribute(name) + " is missing", ExitCode::damaged_file);
    result.type = H5Handle(H5Aget_type(result.attribute.get()), H5Tclose);
    result.space = H5Handle(H5Aget_space(result.attribute.get()), H5Sclose);
    if (H5Sget_simple_extent_npoints(result.space.get()) != 1)
        throw Error(text(file.path().string(), ": ", object, ": attribute ", name, " is not a single value"),
                    ExitCode::damaged_file);
    return result;
}

[[noreturn]] void wrong_type(const H5File& file, const std::string& object, const std::string& name,
                             const char* wanted) {
    throw Error(text(file.path().string(), ": ", object, ": attribute ", name, " is not ", wanted),
                ExitCode::damaged_file);
}

}  // namespace

void H5File::set_attribute(const std::string& object, const std::string& name, const std::string& value) {
    H5Handle type = fixed_string_type(value.size());
    const std::string bytes = value.empty() ? std::string(1, '\0') : value;
    write_attribute(*this, object, name, type.get(), type.get(), bytes.data());
}

void H5File::set_attribute(const std::string& object, const std::string& name, int64_t value) {
    write_attribute(*this, object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

bool H5File::has_attribute(const std::string& object, const std::string& name) const {
    const htri_t exists = H5Aexists_by_name(id(), object.c_str(), name.c_str(), H5P_DEFAULT);
    if (exists < 0) fail(path_, object, attribute(name) + " cannot be looked up", ExitCode::damaged_file);
    return exists > 0;
}

std::string H5File::string_attribute(const std::string& object, const std::string& name) const {
    const OpenAttribute open = open_attribute(*this, object, name);
    if (H5Tget_class(open.type.get()) != H5T_STRING) wrong_type(*this, object, name, "a string");
    bool failed = false;
    const auto strings = read_string_elements(
        open.type.get(), open.space.get(),
        [&](hid_t type, void* buffer) { return H5Aread(open.attribute.get(), type, buffer); }, failed);
    if (failed) fail(path_, object, attribute(name) + " cannot be read", ExitCode::damaged_file);
    return strings.at(0);
}

int64_t H5File::integer_attribute(const std::string& object, const std::string& name) const {
    const OpenAttribute open = open_attribute(*this, object, name);
    if (H5Tget_class(open.type.get()) != H5T_INTEGER) wrong_type(*this, object, name, "an integer");
    int64_t value = 0;
    if (H5Aread(open.attribute.get(), H5T_NATIVE_INT64, &value) < 0)
        fail(path_, object, attribute(name) + " cannot be read", ExitCode::damaged_file);
    return value;
}

void H5File::attach_scale(const std::string& dataset, int dimension, const std::string& scale) {
    H5Handle data = checked(H5Dopen2(id(), dataset.c_str(), H5P_DEFAULT), H5Dclose, path_, dataset,
                            "is missing, no scale can be attached to it", ExitCode::storage);
    H5Handle ticks = checked(H5Dopen2(id(), scale.c_str(), H5P_DEFAULT), H5Dclose, path_, scale,
                             "is missing, it cannot be made a dimension scale", ExitCode::storage);
    const std::string short_name = scale.substr(scale.find_last_of('/') + 1);
    if (H5DSis_scale(ticks.get()) <= 0 && H5DSset_scale(ticks.get(), short_name.c_str()) < 0)
        fail(path_, scale, "cannot be made a dimension scale", ExitCode::storage);
    if (H5DSattach_scale(data.get(), ticks.get(), static_cast<unsigned>(dimension)) < 0)
        fail(path_, dataset, text("scale ", scale, " cannot be attached to dimension ", dimension), ExitCode::storage);
}

}  // namespace amalgam
