// SPDX-License-Identifier: Apache-2.0
// One process at a time works in a folder, whichever host it runs on. The file `lock` in the folder says who; a lock of
// the kernel (fcntl) on it ends with the process, however that ends, and reaches other hosts where the file system
// passes it on. Where it does not (Lustre without the mount option flock, NFS with nolock), a heartbeat in the file
// decides: a holder on this machine is looked up among the processes; one elsewhere is dead if its heartbeat has stood
// still for LockTimes::patience, by the clock of who watches, so that clocks need not agree.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace amalgam {

/// Who holds a lock.
struct LockHolder {
    std::string host;
    std::string machine;  // the running system and its set of process numbers: where `process` means something
    int64_t process = 0;
    int64_t started = 0;  // of the process, clock ticks since the system started: numbers are used again
    std::string job;      // of the scheduler; may be empty
    std::string since;    // ISO 8601

    bool is_same_process(const LockHolder& other) const;
};

LockHolder this_process();

/// Seconds.
struct LockTimes {
    double beat = 10.0;      // between heartbeats
    double patience = 60.0;  // a heartbeat of another machine that stands still for so long has ended
    double grace = 2.0;      // for a process that is just ending
    double settle = 2.0;     // without locks of the kernel, whose name is in the file after so long has won
};

class FolderLock {
  public:
    /// Makes the folder if need be. Throws Error(busy) that says who is at work there, Error(storage).
    explicit FolderLock(const std::filesystem::path& folder, LockHolder me = this_process(), LockTimes times = {},
                        bool kernel_locks = true);
    /// Gives it back: the file is gone.
    ~FolderLock();
    FolderLock(const FolderLock&) = delete;
    FolderLock& operator=(const FolderLock&) = delete;

  private:
    class Held;
    std::unique_ptr<Held> held_;
};

}  // namespace amalgam
