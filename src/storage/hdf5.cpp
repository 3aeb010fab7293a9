// SPDX-License-Identifier: Apache-2.0
// Handles and files; datasets and attributes have their own files.
#include "storage/hdf5.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "storage/hdf5_detail.h"
#include "storage/write_once.h"
#include "system/clock.h"

namespace amalgam {

using namespace hdf5_detail;

namespace {

/// -1 if there is none.
int descriptor_of(hid_t file) {
    void* descriptor = nullptr;
    return H5Fget_vfd_handle(file, H5P_DEFAULT, &descriptor) >= 0 ? *static_cast<int*>(descriptor) : -1;
}

/// Sets space on the disk aside for the whole file, whose size stays (a longer one could lose its last bytes unseen).
/// An errno if there is too little; 0 also where a file system cannot.
int reserve_space(hid_t file) {
    hsize_t size = 0;
    const int descriptor = descriptor_of(file);
    if (descriptor < 0 || H5Fget_filesize(file, &size) < 0 || size == 0) return 0;
    if (fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) == 0) return 0;
    return errno == ENOSPC || errno == EDQUOT ? errno : 0;
}

/// Closes a written file. HDF5 (seen with 1.10.8) does not survive a flush that fails: it can neither flush nor close
/// the file any more, and crashes in MPI_Finalize. So space is reserved first, and when the disk does not take the
/// file, HDF5 writes into memory instead. The file on disk is lost either way; negative is returned.
herr_t close_written(hid_t file) {
    const bool flushed = reserve_space(file) == 0 && H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0;
    const int descriptor = descriptor_of(file);
    if (!flushed && descriptor >= 0) {
        const int memory = memfd_create("rest of an HDF5 file", MFD_CLOEXEC);
        if (memory >= 0) {
            dup2(memory, descriptor);
            ::close(memory);
        }
    }
    const herr_t closed = H5Fclose(file);
    return flushed ? closed : -1;
}

H5Handle access_for_writing() {
    H5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    H5Pset_fapl_sec2(access.get());  // close_written() needs a file that is one descriptor
    // The formats since HDF5 1.8 have checksums in all that is not data: no bit of a name, shape or attribute turns
    // over unseen.
    H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_LATEST);
    H5Pset_alignment(access.get(), 64 * 1024, 4096);  // large datasets begin on a page of their own
    return access;
}

}  // namespace

H5Handle::H5Handle(H5Handle&& other) noexcept
    : id_(std::exchange(other.id_, -1)), close_(std::exchange(other.close_, nullptr)) {}

H5Handle& H5Handle::operator=(H5Handle&& other) noexcept {
    if (this != &other) {
        close();
        id_ = std::exchange(other.id_, -1);
        close_ = std::exchange(other.close_, nullptr);
    }
    return *this;
}

H5Handle::~H5Handle() {
    close();
}

bool H5Handle::close() {
    if (id_ < 0 || close_ == nullptr) return true;
    return close_(std::exchange(id_, -1)) >= 0;
}

H5File H5File::create(const std::filesystem::path& path) {
    prepare_library();
    H5Handle access = access_for_writing();
    H5Handle creation = one_header_properties(H5P_FILE_CREATE);
    return H5File(path, checked(H5Fcreate(path.c_str(), H5F_ACC_EXCL, creation.get(), access.get()), close_written,
                                path, "", "cannot be created", ExitCode::storage));
}

H5File H5File::open(const std::filesystem::path& path) {
    prepare_library();
    std::error_code unreadable;
    if (!std::filesystem::exists(path, unreadable))
        throw Error(text(path.string(), ": no such file (an HDF5 file is needed there)"), ExitCode::bad_input);
    return H5File(path, checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose, path, "",
                                "cannot be read as HDF5", ExitCode::damaged_file));
}

H5File H5File::update(const std::filesystem::path& path) {
    prepare_library();
    H5Handle access = access_for_writing();
    return H5File(path, checked(H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get()), close_written, path, "",
                                "cannot be opened for writing", ExitCode::storage));
}

void H5File::close() {
    if (!file_) return;
    if (const int code = reserve_space(file_.get()))
        throw Error(text(path_.string(), ": cannot be flushed to disk: ", std::strerror(code)), ExitCode::storage);
    // Apart from closing, which would overwrite the error stack that tells why.
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0) fail(path_, "", "cannot be flushed to disk", ExitCode::storage);
    if (!file_.close()) fail(path_, "", "cannot be closed, its content may be lost", ExitCode::storage);
}

void H5File::describe_file(const std::string& filetype, const Provenance& provenance, int32_t version, int32_t minor) {
    unsigned library[3] = {};
    H5get_libversion(&library[0], &library[1], &library[2]);
    const std::string hdf5 = text("HDF5 ", library[0], ".", library[1], ".", library[2]);

    set_attribute("/", "filetype", filetype);
    const hsize_t two = 2;
    const int32_t format_version[2] = {version, minor};
    H5Handle space(H5Screate_simple(1, &two, nullptr), H5Sclose);
    H5Handle attribute = checked(H5Acreate_by_name(id(), "/", "format_version", H5T_STD_I32LE, space.get(), H5P_DEFAULT,
                                                   H5P_DEFAULT, H5P_DEFAULT),
                                 H5Aclose, path_, "/", "attribute format_version cannot be made", ExitCode::storage);
    if (H5Awrite(attribute.get(), H5T_NATIVE_INT32, format_version) < 0)
        fail(path_, "/", "attribute format_version cannot be written", ExitCode::storage);

    set_attribute("/", "software", std::string("amalgam"));
    set_attribute("/", "software_version", provenance.software_version);
    set_attribute("/", "git_sha", provenance.git_sha);
    set_attribute("/", "date", date_now());
    set_attribute("/", "machine", provenance.machine);
    set_attribute("/", "job_id", provenance.job_id);
    set_attribute("/", "command_line", provenance.command_line);
    set_attribute("/", "libraries", provenance.libraries.empty() ? hdf5 : provenance.libraries + "; " + hdf5);
    set_attribute("/", "job", provenance.job);
    set_attribute("/", "ranks", int64_t{provenance.ranks});
}

void H5File::expect_filetype(const std::string& filetype, int32_t newest, int32_t oldest) const {
    if (!has_attribute("/", "filetype") || !has_attribute("/", "format_version"))
        throw Error(text(path_.string(), ": has no attributes filetype and format_version (a file of type \"", filetype,
                         "\" is needed); is it an Amalgam file?"),
                    ExitCode::damaged_file);
    const std::string found = string_attribute("/", "filetype");
    if (found != filetype)
        throw Error(text(path_.string(), ": filetype is \"", found, "\" (\"", filetype, "\" is needed)"),
                    ExitCode::damaged_file);

    H5Handle version = checked(H5Aopen_by_name(id(), "/", "format_version", H5P_DEFAULT, H5P_DEFAULT), H5Aclose, path_,
                               "/", "attribute format_version cannot be opened", ExitCode::damaged_file);
    H5Handle space(H5Aget_space(version.get()), H5Sclose);
    int64_t numbers[2] = {-1, -1};
    if (H5Sget_simple_extent_npoints(space.get()) != 2 || H5Aread(version.get(), H5T_NATIVE_INT64, numbers) < 0)
        fail(path_, "/", "attribute format_version is not two integers", ExitCode::damaged_file);
    if (numbers[0] > newest)
        throw Error(
            text(path_.string(), ": format version is ", numbers[0], ".", numbers[1],
                 " (this program reads versions up to ", newest, ".x); was it written by another version of Amalgam?"),
            ExitCode::damaged_file);
    if (numbers[0] < oldest)
        throw Error(
            text(path_.string(), ": format version is ", numbers[0], ".", numbers[1],
                 " (this program reads versions from ", oldest,
                 ".x on, and an older Amalgam wrote this file); make it again, or use the Amalgam that made it"),
            ExitCode::damaged_file);
}

void write_h5_once(const std::filesystem::path& path, const std::function<void(H5File&)>& fill) {
    write_once(path, [&](const std::filesystem::path& temporary) {
        H5File file = H5File::create(temporary);
        fill(file);
        file.close();
    });
}

}  // namespace amalgam
