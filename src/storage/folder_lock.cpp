// SPDX-License-Identifier: Apache-2.0
#include "storage/folder_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"
#include "system/provenance.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

constexpr double surely_dead = 600.0;  // seconds without a heartbeat, whoever's clock is wrong by some minutes

std::string first_line(const fs::path& file) {
    std::ifstream stream(file);
    std::string line;
    std::getline(stream, line);
    return line;
}

/// Of a process on this machine, in clock ticks; 0 if it is not there, or has ended and only its status is waited for.
int64_t start_of(int64_t process) {
    std::string line = first_line(fs::path("/proc") / std::to_string(process) / "stat");
    std::istringstream rest(line.substr(std::min(line.size(), line.rfind(')') + 1)));  // names may hold anything
    std::string state, field;
    rest >> state;
    for (int i = 4; i <= 22; ++i) rest >> field;  // proc(5): starttime is the 22nd
    return rest && state != "Z" && state != "X" ? std::atoll(field.c_str()) : 0;
}

void pause_for(double seconds) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

struct Content {
    LockHolder holder;
    int64_t beat = 0;
};

std::string to_text(const LockHolder& h, int64_t beat) {
    char count[24];
    std::snprintf(count, sizeof count, "%012lld", static_cast<long long>(beat));  // of one width: written in place
    return text("host: ", h.host, "\nprocess: ", h.process, "\njob: ", h.job, "\nsince: ", h.since,
                "\nmachine: ", h.machine, "\nstarted: ", h.started, "\nbeat: ", count, "\n");
}

/// None if it holds no whole entry: nobody has it, or somebody is just writing it.
std::optional<Content> from_text(const std::string& lines) {
    std::map<std::string, std::string> values;
    std::istringstream stream(lines);
    for (std::string line; std::getline(stream, line);) {
        const size_t colon = line.find(": ");
        if (colon != std::string::npos) values[line.substr(0, colon)] = line.substr(colon + 2);
    }
    if (values["beat"].size() != 12) return std::nullopt;
    return Content{{values["host"], values["machine"], std::atoll(values["process"].c_str()),
                    std::atoll(values["started"].c_str()), values["job"], values["since"]},
                   std::atoll(values["beat"].c_str())};
}

/// Opened anew each time: network file systems then ask their server.
std::optional<Content> read_content(const fs::path& file) {
    std::ifstream stream(file);
    return from_text({std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()});
}

enum class KernelLock { taken, held_by_another, not_offered };

KernelLock try_lock(int descriptor) {
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    // Of the open file, not of the process: those would be lost when any descriptor of the file is closed.
    int failed = fcntl(descriptor, F_OFD_SETLK, &whole);
    if (failed && errno == EINVAL) failed = fcntl(descriptor, F_SETLK, &whole);
    if (!failed) return KernelLock::taken;
    return errno == EAGAIN || errno == EACCES ? KernelLock::held_by_another : KernelLock::not_offered;
}

}  // namespace

bool LockHolder::is_same_process(const LockHolder& other) const {
    return host == other.host && machine == other.machine && process == other.process && started == other.started;
}

LockHolder this_process() {
    std::error_code ignored;
    const std::string numbers = fs::read_symlink("/proc/self/ns/pid", ignored).string();
    const Provenance known = provenance();
    return {known.machine,     first_line("/proc/sys/kernel/random/boot_id") + " " + numbers,
            int64_t{getpid()}, start_of(getpid()),
            known.job_id,      known.date};
}

class FolderLock::Held {
  public:
    Held(const fs::path& folder, LockHolder me, LockTimes times, bool kernel_locks)
        : folder_(folder), file_(folder / "lock"), me_(std::move(me)), times_(times), kernel_locks_(kernel_locks) {
        std::error_code failed;
        fs::create_directories(folder, failed);
        if (failed) fail("its folder cannot be made", failed.message());
        while (!take()) {  // the file was removed by its last holder after it was opened here
        }
        heart_ = std::thread([this] { beat(); });
    }

    ~Held() {
        {
            const std::lock_guard lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        heart_.join();
        if (is_ours()) ::unlink(file_.c_str());  // while it is locked: who opened it before will see that it is gone
        ::close(descriptor_);
    }

  private:
    [[noreturn]] void fail(const std::string& problem, const std::string& reason) const {
        throw Error(text(file_.string(), ": ", problem, ": ", reason), ExitCode::storage);
    }

    [[noreturn]] void busy(const std::optional<Content>& content) {
        ::close(descriptor_);
        const LockHolder holder = content ? content->holder : LockHolder();
        const std::string who = !content
                                    ? "a process that has not said its name yet"
                                    : text("process ", holder.process, " on ", holder.host,
                                           holder.job.empty() ? "" : ", job " + holder.job, ", since ", holder.since);
        throw Error(text(folder_.string(), ": another run is at work here: ", who,
                         " (both would write the same files; nothing was started or changed); wait for its end, stop "
                         "it with `touch ",
                         (folder_ / "stop").string(), "`, or choose another name"),
                    ExitCode::busy);
    }

    bool take() {
        descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (descriptor_ < 0) fail("cannot be opened for writing", std::strerror(errno));
        KernelLock lock = KernelLock::not_offered;
        const double end = seconds_now() + times_.grace;
        do {
            lock = kernel_locks_ ? try_lock(descriptor_) : KernelLock::not_offered;
            if (lock != KernelLock::held_by_another) break;
            pause_for(0.05);
        } while (seconds_now() < end);
        if (lock == KernelLock::held_by_another) busy(read_content(file_));
        if (!is_current()) {
            ::close(descriptor_);
            return false;
        }
        const auto before = read_content(file_);
        if (before && is_alive(*before)) busy(before);
        if (before)
            info(text(file_.string(), ": left by process ", before->holder.process, " on ", before->holder.host,
                      ", which is not there any more; taken over"));
        write(0);
        if (lock == KernelLock::not_offered && before) {  // two may have come to the same conclusion
            pause_for(times_.settle);
            const auto now = read_content(file_);
            if (!now || !now->holder.is_same_process(me_)) busy(now);
        }
        return true;
    }

    /// Is the open file still the one of that name?
    bool is_current() const {
        struct stat opened {
        }, named{};
        return fstat(descriptor_, &opened) == 0 && ::stat(file_.c_str(), &named) == 0 &&
               opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
    }

    bool is_alive(const Content& content) const {
        const LockHolder& holder = content.holder;
        if (holder.is_same_process(me_)) return true;  // another lock of this process
        if (holder.machine == me_.machine) {
            const double end = seconds_now() + times_.grace;
            while (start_of(holder.process) == holder.started && holder.started != 0) {
                if (seconds_now() > end) return true;
                pause_for(0.05);
            }
            return false;
        }
        std::error_code failed;
        const auto age = fs::file_time_type::clock::now() - fs::last_write_time(file_, failed);
        if (!failed && std::chrono::duration<double>(age).count() > surely_dead) return false;
        info(text(file_.string(), ": names process ", holder.process, " on ", holder.host,
                  "; watching its heartbeat for ", format_duration(times_.patience)));
        for (const double end = seconds_now() + times_.patience; seconds_now() < end;) {
            pause_for(std::min(1.0, times_.patience / 4.0));
            const auto now = read_content(file_);
            if (now && (now->beat != content.beat || !now->holder.is_same_process(holder))) return true;
        }
        return false;
    }

    void write(int64_t beat) {
        const std::string line = to_text(me_, beat);
        if (::pwrite(descriptor_, line.data(), line.size(), 0) != ssize_t(line.size()))
            fail("cannot be written", std::strerror(errno));
        if (ftruncate(descriptor_, off_t(line.size())) != 0 || fdatasync(descriptor_) != 0)
            fail("cannot be written", std::strerror(errno));
    }

    /// Somebody has removed the file by hand: the next start would find nobody here.
    void put_back() {
        const int descriptor = ::open(file_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor < 0) return;
        if (kernel_locks_) try_lock(descriptor);
        ::close(std::exchange(descriptor_, descriptor));
    }

    bool is_ours() const {
        const auto content = read_content(file_);
        return content && content->holder.is_same_process(me_);
    }

    /// Who was taken for dead (after being suspended for long, say) has lost the folder and must not write there again.
    void beat() {
        std::unique_lock lock(mutex_);
        for (int64_t count = 1; !ending_; ++count) {
            wake_.wait_for(lock, std::chrono::duration<double>(times_.beat), [&] { return ending_; });
            if (ending_) return;
            const auto content = read_content(file_);
            if (content && !content->holder.is_same_process(me_)) {
                log_rank(LogLevel::error,
                         text(file_.string(), ": process ", content->holder.process, " on ", content->holder.host,
                              " has taken over this run's folder; this run ends"));
                std::_Exit(int(ExitCode::busy));
            }
            try {
                if (!is_current()) put_back();
                write(count);
            } catch (const Error& error) {  // a full disk, say; the lock is still held
                log_rank(LogLevel::warning, error.what());
            }
        }
    }

    fs::path folder_, file_;
    LockHolder me_;
    LockTimes times_;
    bool kernel_locks_;
    int descriptor_ = -1;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool ending_ = false;
    std::thread heart_;
};

FolderLock::FolderLock(const fs::path& folder, LockHolder me, LockTimes times, bool kernel_locks)
    : held_(std::make_unique<Held>(folder, std::move(me), times, kernel_locks)) {}

FolderLock::~FolderLock() = default;

}  // namespace amalgam
