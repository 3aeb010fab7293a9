// SPDX-License-Identifier: Apache-2.0
// A library to be preloaded into an MPI program: counts what one process asks of MPI and of the file system between
// MPI_Init and MPI_Finalize, and writes it to $AMALGAM_CALL_COUNTS/HOST-RANK as lines "name calls bytes". Bytes of an
// MPI call are those of the larger of the caller's two buffers, so that a gather to a root counts all it receives
// there.
#include <dlfcn.h>
#include <fcntl.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <string>

namespace {

struct Count {
    long long calls = 0, bytes = 0;
};

std::atomic<bool> counting = false;
std::mutex guard;
std::map<std::string, Count>& counts() {
    static auto* const all = new std::map<std::string, Count>;  // outlives the destructors of other libraries
    return *all;
}

void add(const std::string& name, long long bytes) {
    if (!counting) return;
    const std::lock_guard<std::mutex> lock(guard);
    Count& count = counts()[name];
    ++count.calls;
    count.bytes += bytes;
}

long long bytes_of(long long count, MPI_Datatype type) {
    int size = 0;
    PMPI_Type_size(type, &size);
    return count * size;
}

int ranks_of(MPI_Comm comm) {
    int size = 1;
    PMPI_Comm_size(comm, &size);
    return size;
}

int rank_in(MPI_Comm comm) {
    int rank = 0;
    PMPI_Comm_rank(comm, &rank);
    return rank;
}

/// Files of libraries and devices do not count.
bool is_ours(const char* path) {
    for (const char* system : {"/proc", "/sys", "/dev", "/usr", "/etc", "/lib", "/var"})
        if (std::strncmp(path, system, std::strlen(system)) == 0) return false;
    return std::strstr(path, "openmpi-sessions") == nullptr && std::strstr(path, "ompi.") == nullptr &&
           std::strstr(path, ".so") == nullptr;
}

void add_file(const char* path, bool created) {
    if (path != nullptr && is_ours(path)) add(created ? "file_created" : "file_opened", 0);
}

template <class Function>
Function next(const char* name) {
    return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

using Pread = ssize_t (*)(int, void*, size_t, off_t);
using Open = int (*)(const char*, int, ...);
using Fopen = std::FILE* (*)(const char*, const char*);

ssize_t counted_pread(ssize_t bytes, int file) {
    if (!counting || bytes <= 0) return bytes;
    char path[4096] = "";
    const std::string link = "/proc/self/fd/" + std::to_string(file);
    if (readlink(link.c_str(), path, sizeof path - 1) > 0 && std::strstr(path, ".safetensors") != nullptr)
        add("safetensors_read", bytes);
    return bytes;
}

void start() {
    counting = true;
}

void write_counts() {
    counting = false;
    const char* folder = std::getenv("AMALGAM_CALL_COUNTS");
    if (folder == nullptr) return;
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    const std::string path = std::string(folder) + "/" + host + "-" + std::to_string(rank_in(MPI_COMM_WORLD));
    std::FILE* file = std::fopen(path.c_str(), "w");
    if (file == nullptr) return;
    for (const auto& [name, count] : counts())
        std::fprintf(file, "%s %lld %lld\n", name.c_str(), count.calls, count.bytes);
    std::fclose(file);
}

}  // namespace

extern "C" {

int MPI_Init(int* argc, char*** argv) {
    const int result = PMPI_Init(argc, argv);
    start();
    return result;
}
int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
    const int result = PMPI_Init_thread(argc, argv, required, provided);
    start();
    return result;
}
int MPI_Finalize() {
    write_counts();
    return PMPI_Finalize();
}

int MPI_Barrier(MPI_Comm comm) {
    add("MPI_Barrier", 0);
    return PMPI_Barrier(comm);
}
int MPI_Ibarrier(MPI_Comm comm, MPI_Request* request) {
    add("MPI_Ibarrier", 0);
    return PMPI_Ibarrier(comm, request);
}
int MPI_Bcast(void* buffer, int count, MPI_Datatype type, int root, MPI_Comm comm) {
    add("MPI_Bcast", bytes_of(count, type));
    return PMPI_Bcast(buffer, count, type, root, comm);
}
int MPI_Allreduce(const void* sent, void* received, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    add("MPI_Allreduce", bytes_of(count, type));
    return PMPI_Allreduce(sent, received, count, type, op, comm);
}
int MPI_Iallreduce(const void* sent, void* received, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                   MPI_Request* request) {
    add("MPI_Iallreduce", bytes_of(count, type));
    return PMPI_Iallreduce(sent, received, count, type, op, comm, request);
}
int MPI_Reduce(const void* sent, void* received, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm) {
    add("MPI_Reduce", bytes_of(count, type));
    return PMPI_Reduce(sent, received, count, type, op, root, comm);
}
int MPI_Reduce_scatter_block(const void* sent, void* received, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
    add("MPI_Reduce_scatter_block", bytes_of(count, type) * ranks_of(comm));
    return PMPI_Reduce_scatter_block(sent, received, count, type, op, comm);
}
int MPI_Allgather(const void* sent, int count, MPI_Datatype type, void* received, int received_count,
                  MPI_Datatype received_type, MPI_Comm comm) {
    add("MPI_Allgather", bytes_of(received_count, received_type) * ranks_of(comm));
    return PMPI_Allgather(sent, count, type, received, received_count, received_type, comm);
}
int MPI_Allgatherv(const void* sent, int count, MPI_Datatype type, void* received, const int* received_counts,
                   const int* places, MPI_Datatype received_type, MPI_Comm comm) {
    const long long all = std::accumulate(received_counts, received_counts + ranks_of(comm), 0LL);
    add("MPI_Allgatherv", bytes_of(all, received_type));
    return PMPI_Allgatherv(sent, count, type, received, received_counts, places, received_type, comm);
}
int MPI_Gather(const void* sent, int count, MPI_Datatype type, void* received, int received_count,
               MPI_Datatype received_type, int root, MPI_Comm comm) {
    const bool receives = rank_in(comm) == root;
    add("MPI_Gather", receives ? bytes_of(received_count, received_type) * ranks_of(comm) : bytes_of(count, type));
    return PMPI_Gather(sent, count, type, received, received_count, received_type, root, comm);
}
int MPI_Gatherv(const void* sent, int count, MPI_Datatype type, void* received, const int* received_counts,
                const int* places, MPI_Datatype received_type, int root, MPI_Comm comm) {
    long long all = count;
    if (rank_in(comm) == root) all = std::accumulate(received_counts, received_counts + ranks_of(comm), 0LL);
    add("MPI_Gatherv", bytes_of(all, type));
    return PMPI_Gatherv(sent, count, type, received, received_counts, places, received_type, root, comm);
}
int MPI_Send(const void* sent, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm) {
    add("MPI_Send", bytes_of(count, type));
    return PMPI_Send(sent, count, type, to, tag, comm);
}
int MPI_Isend(const void* sent, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request) {
    add("MPI_Isend", bytes_of(count, type));
    return PMPI_Isend(sent, count, type, to, tag, comm, request);
}
int MPI_Recv(void* received, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Status* status) {
    add("MPI_Recv", bytes_of(count, type));
    return PMPI_Recv(received, count, type, from, tag, comm, status);
}
int MPI_Irecv(void* received, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request* request) {
    add("MPI_Irecv", bytes_of(count, type));
    return PMPI_Irecv(received, count, type, from, tag, comm, request);
}
int MPI_Sendrecv(const void* sent, int count, MPI_Datatype type, int to, int tag, void* received, int received_count,
                 MPI_Datatype received_type, int from, int received_tag, MPI_Comm comm, MPI_Status* status) {
    add("MPI_Sendrecv", std::max(bytes_of(count, type), bytes_of(received_count, received_type)));
    return PMPI_Sendrecv(sent, count, type, to, tag, received, received_count, received_type, from, received_tag, comm,
                         status);
}
int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* made) {
    add("MPI_Comm_dup", 0);
    return PMPI_Comm_dup(comm, made);
}
int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm* made) {
    add("MPI_Comm_split", 0);
    return PMPI_Comm_split(comm, color, key, made);
}
int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm* made) {
    add("MPI_Comm_split_type", 0);
    return PMPI_Comm_split_type(comm, type, key, info, made);
}

// Programs compiled for large files call the second name of each.
ssize_t pread(int file, void* buffer, size_t bytes, off_t offset) {
    static const auto original = next<Pread>("pread");
    return counted_pread(original(file, buffer, bytes, offset), file);
}
ssize_t pread64(int file, void* buffer, size_t bytes, off_t offset) {
    static const auto original = next<Pread>("pread64");
    return counted_pread(original(file, buffer, bytes, offset), file);
}
int open(const char* path, int flags, ...) {
    static const auto original = next<Open>("open");
    add_file(path, (flags & O_CREAT) != 0);
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return original(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
    static const auto original = next<Open>("open64");
    add_file(path, (flags & O_CREAT) != 0);
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return original(path, flags, mode);
}
std::FILE* fopen(const char* path, const char* mode) {
    static const auto original = next<Fopen>("fopen");
    add_file(path, mode[0] != 'r');
    return original(path, mode);
}
std::FILE* fopen64(const char* path, const char* mode) {
    static const auto original = next<Fopen>("fopen64");
    add_file(path, mode[0] != 'r');
    return original(path, mode);
}

}  // extern "C"
