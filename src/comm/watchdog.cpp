// SPDX-License-Identifier: Apache-2.0
#include "comm/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <list>
#include <mutex>
#include <thread>

#include "comm/rank_status.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/log.h"
#include "system/provenance.h"

namespace amalgam {
namespace {

// Seconds. They add up to less than 30 from the deadline to the end of the job.
constexpr double look_every = 0.2, longest_look = 1.0;
constexpr double ask_again_after = 6.0;
constexpr double silence_accepted = 6.0;  // of rank 0, if a late rank has told it
constexpr double answers_within = 8.0;
constexpr double tell_again_after = 2.0;
constexpr int last_words_within = 8;  // for the diagnosis, NCCL and MPI_Abort

enum Tag { late_tag = 1, question_tag, answer_tag };

struct Links {
    std::mutex mutex;
    std::vector<WatchedLink*> all;
};

Links& links() {
    static Links the_links;
    return the_links;
}

}  // namespace

void WatchedLink::watch() {
    const std::lock_guard lock(links().mutex);
    links().all.push_back(this);
}

void WatchedLink::unwatch() {
    const std::lock_guard lock(links().mutex);
    std::erase(links().all, this);
}

/// The watching thread talks MPI; the guard does not, and ends the process if the watching thread itself gets stuck.
class Watchdog::Threads {
  public:
    Threads(const Communicator& world, const Deadlines& deadlines)
        : world_(world.get() == MPI_COMM_NULL ? Communicator() : Communicator::duplicate(world.get())),
          deadlines_(deadlines) {
        std::snprintf(host_, sizeof host_, "%s", host_name().c_str());
        if (world_.size() > 1) {
            const int next = (world_.rank() + 1) % world_.size(),
                      previous = (world_.rank() + world_.size() - 1) % world_.size();
            check_mpi(MPI_Sendrecv(host_, sizeof host_, MPI_CHAR, next, 0, previous_host_, sizeof previous_host_,
                                   MPI_CHAR, previous, 0, world_.get(), MPI_STATUS_IGNORE),
                      "MPI_Sendrecv");
        }
        watcher_ = std::thread([this] { watch(); });
        guard_ = std::thread([this] { guard(); });
    }

    ~Threads() {
        const bool orderly = std::uncaught_exceptions() == 0;
        if (orderly) {
            const Waiting waiting("the end of the run");
            world_.barrier();
        }
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
        }
        stopping_.notify_all();
        watcher_.join();
        guard_.join();
        if (orderly) drain();
    }

  private:
    struct Sent {
        RankStatus message;
        MPI_Request request = MPI_REQUEST_NULL;
    };

    /// False once the watchdog is to stop.
    bool sleep(double seconds) {
        std::unique_lock lock(mutex_);
        return !stopping_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return stop_; });
    }

    void watch() {
        try {
            do {
                ++looks_;
                look_at_myself();
                look_at_links();
                if (world_.size() > 1) receive();
                if (status_.late()) be_late();
                if (asking_) ask();
            } while (sleep(look_every));
        } catch (const std::exception& error) {
            end_job(text("the watchdog cannot go on: ", error.what()));
        }
    }

    void look_at_myself() {
        const Activity activity = current_activity();
        if (activity.count != last_count_) unchanged_ = silence_ = 0.0;
        last_count_ = activity.count;
        // While a process is stopped nobody looks, and that time must not count.
        passed_ = std::min(since_look_.seconds(), longest_look);
        since_look_ = Stopwatch();
        unchanged_ += passed_;
        now_ += passed_;
        status_ = make_status(activity, unchanged_, deadlines_.of(activity.phase));
        std::copy(std::begin(host_), std::end(host_), status_.host);
        std::copy(std::begin(previous_host_), std::end(previous_host_), status_.previous_host);
    }

    void look_at_links() {
        std::string problem;
        {
            const std::lock_guard lock(links().mutex);
            for (WatchedLink* link : links().all)
                if (problem.empty()) problem = link->problem();
        }
        if (!problem.empty()) end_job(problem);
    }

    void receive() {
        int source = 0;
        RankStatus message;
        while (next(question_tag, message, source)) {
            silence_ = -ask_again_after;
            status_.round = message.round;
            send(status_, source, answer_tag);
        }
        while (next(late_tag, message, source)) wanted_ = true;
        while (next(answer_tag, message, source))
            if (asking_ && message.round == round_ && !answers_[size_t(source)]) {
                answers_[size_t(source)] = message;
                ++answered_;
            }
        if (wanted_) begin_round();
        std::erase_if(sent_, [](Sent& sent) {
            int done = 0;
            check_mpi(MPI_Test(&sent.request, &done, MPI_STATUS_IGNORE), "MPI_Test");
            return done != 0;
        });
    }

    bool next(Tag tag, RankStatus& message, int& source) {
        int there = 0;
        MPI_Status status;
        check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, tag, world_.get(), &there, &status), "MPI_Iprobe");
        if (!there) return false;
        source = status.MPI_SOURCE;
        check_mpi(MPI_Recv(&message, sizeof message, MPI_BYTE, source, tag, world_.get(), MPI_STATUS_IGNORE),
                  "MPI_Recv");
        return true;
    }

    void send(const RankStatus& message, int rank, Tag tag) {
        Sent& sent = sent_.emplace_back(Sent{message});
        check_mpi(MPI_Isend(&sent.message, sizeof message, MPI_BYTE, rank, tag, world_.get(), &sent.request),
                  "MPI_Isend");
    }

    /// Tells rank 0; if that does nothing, rank 1; if that does nothing either, ends the job by itself.
    void be_late() {
        silence_ += passed_;
        if (silence_ < 0.0) return;
        const int asker = int(silence_ / silence_accepted);
        if (asker >= std::min(2, world_.size()))
            return end_job(text(status_.waits ? text("waits in ", status_.operation) : "has finished nothing", " for ",
                                int64_t(unchanged_), " s, and rank 0 does not answer"));
        if (asker == world_.rank()) {
            wanted_ = true;
            begin_round();
        } else if (now_ >= tell_again_) {
            send(status_, asker, late_tag);
            tell_again_ = now_ + tell_again_after;
        }
    }

    void begin_round() {
        if (asking_ || now_ < ask_again_) return;
        asking_ = true;
        wanted_ = false;
        ++round_;
        answers_until_ = now_ + answers_within;
        answers_.assign(size_t(world_.size()), std::nullopt);
        answered_ = 1;
        RankStatus question;
        question.round = round_;
        for (int rank = 0; rank < world_.size(); ++rank)
            if (rank != world_.rank()) send(question, rank, question_tag);
    }

    void ask() {
        silence_ = -ask_again_after;  // this rank acts
        if (answered_ < world_.size() && now_ < answers_until_) return;
        answers_[size_t(world_.rank())] = status_;
        asking_ = false;
        ask_again_ = now_ + ask_again_after;
        const std::string report = diagnosis(answers_);
        if (!report.empty()) end_job(report);
    }

    [[noreturn]] void end_job(const std::string& report) {
        ending_ = true;
        log_rank(LogLevel::error, report);
        if (const std::unique_lock lock(links().mutex, std::try_to_lock); lock.owns_lock())
            for (WatchedLink* link : links().all) link->abort();
        constexpr int code = int(ExitCode::communication);
        if (world_.get() != MPI_COMM_NULL) MPI_Abort(MPI_COMM_WORLD, code);
        _exit(code);
    }

    void guard() {
        int64_t last_looks = -1;
        double unchanged = 0.0;
        int ending = 0;
        while (sleep(1.0)) {
            unchanged = looks_ == last_looks ? unchanged + 1.0 : 0.0;
            last_looks = looks_;
            ending += ending_ ? 1 : 0;
            const double deadline = deadlines_.of(current_activity().phase);
            if (ending < last_words_within && (deadline <= 0.0 || unchanged < deadline + silence_accepted)) continue;
            constexpr char words[] = "amalgam: MPI or NCCL is stuck as well; this process leaves without them\n";
            [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, words, sizeof words - 1);
            _exit(int(ExitCode::communication));
        }
    }

    /// Messages that nobody waits for any more; MPI_Finalize wants them received.
    void drain() {
        if (world_.size() == 1) return;
        world_.barrier();
        int source = 0;
        RankStatus message;
        for (const Tag tag : {late_tag, question_tag, answer_tag})
            while (next(tag, message, source)) {
            }
        for (Sent& sent : sent_) MPI_Wait(&sent.request, MPI_STATUS_IGNORE);
    }

    const Communicator world_;
    const Deadlines deadlines_;
    char host_[64] = "", previous_host_[64] = "";

    // Of the watching thread.
    RankStatus status_;
    int64_t last_count_ = -1;
    Stopwatch since_look_;
    double passed_ = 0.0, now_ = 0.0, unchanged_ = 0.0, silence_ = 0.0, tell_again_ = 0.0, ask_again_ = 0.0;
    std::list<Sent> sent_;  // MPI reads from them: their places do not move
    // A round of questions.
    bool wanted_ = false, asking_ = false;
    int64_t round_ = 0, answered_ = 0;
    double answers_until_ = 0.0;
    std::vector<std::optional<RankStatus>> answers_;

    std::atomic<int64_t> looks_{0};
    std::atomic<bool> ending_{false};
    std::mutex mutex_;
    std::condition_variable stopping_;
    bool stop_ = false;
    std::thread watcher_, guard_;
};

Watchdog::Watchdog(const Communicator& world, const Deadlines& deadlines) {
    record_this_thread();
    threads_ = std::make_unique<Threads>(world, deadlines);
}

Watchdog::~Watchdog() = default;

}  // namespace amalgam
