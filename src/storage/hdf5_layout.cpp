// SPDX-License-Identifier: Apache-2.0
// Where the elements of a dataset lie in the file, for those who write or read them without HDF5.
#include "storage/hdf5.h"
#include "storage/hdf5_detail.h"

namespace amalgam {

using namespace hdf5_detail;

namespace {

int64_t offset(hid_t dataset) {
    const haddr_t address = H5Dget_offset(dataset);
    return address == HADDR_UNDEF ? -1 : static_cast<int64_t>(address);
}

void make_groups_of(const H5File& file, const std::string& name) {
    const H5Handle properties = one_header_properties(H5P_GROUP_CREATE);
    for (size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1)) {
        const std::string group = name.substr(0, end);
        if (file.has(group)) continue;
        checked(H5Gcreate2(file.id(), group.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Gclose, file.path(),
                group, "cannot be made", ExitCode::storage);
    }
}

}  // namespace

int64_t H5File::reserve(const std::string& name, StoredType type, std::span<const int64_t> shape) {
    H5Handle space = make_space(shape, *this, name);
    make_groups_of(*this, name);
    H5Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_alloc_time(layout.get(), H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(layout.get(), false);  // equal content, equal bytes
    H5Handle dataset =
        checked(H5Dcreate2(id(), name.c_str(), disk_type(type), space.get(), H5P_DEFAULT, layout.get(), H5P_DEFAULT),
                H5Dclose, path_, name, "cannot be made", ExitCode::storage);
    const int64_t result = offset(dataset.get());
    if (!dataset.close()) fail(path_, name, "cannot be closed", ExitCode::storage);
    return result;
}

int64_t H5File::offset_of(const std::string& name) const {
    H5Handle dataset = checked(H5Dopen2(id(), name.c_str(), H5P_DEFAULT), H5Dclose, path_, name, "no such dataset",
                               ExitCode::damaged_file);
    return offset(dataset.get());
}

}  // namespace amalgam
