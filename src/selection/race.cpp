// SPDX-License-Identifier: Apache-2.0
#include "selection/race.h"

#include <algorithm>
#include <exception>

#include "evaluation/statistics.h"
#include "system/clock.h"
#include "system/error.h"
#include "system/fault_injection.h"
#include "system/log.h"

namespace amalgam {
namespace {

class Race {
  public:
    Race(const RaceSetup& setup, const std::vector<Candidate>& candidates, Measurement& measurement)
        : setup_(setup),
          world_(setup.world),
          group_(setup.groups.group),
          candidates_(candidates),
          measurement_(measurement) {}

    bool run() {
        const std::vector<int64_t> missing = missing_candidates();
        info(text("score: ", missing.size(), " of ", candidates_.size(), " candidates to do, ", setup_.groups.count,
                  " groups of ", setup_.groups.size, " ranks"));
        ScoreTable table;
        table.all_linear_kl = measurement_.all_linear_kl();

        std::vector<int64_t> own;
        for (size_t i = 0; i < missing.size(); ++i)
            if (int64_t(i) % setup_.groups.count == setup_.groups.mine) own.push_back(missing[i]);
        if (world_.any(measure(own))) return false;

        fault_point("score.gather");
        world_.on_root([&] { gather(table); });
        return true;
    }

  private:
    bool is_measured(int64_t number) const {
        const std::filesystem::path file = setup_.candidate_file(number);
        if (!std::filesystem::exists(file)) return false;
        try {
            const Candidate& expected = candidates_[size_t(number)];
            const CandidateResult found = read_candidate(file, expected);
            if (found.number == number && found.candidate == expected) return true;
            warn(text(file.string(), ": is of another candidate; it is scored again"));
        } catch (const std::exception& error) {  // damage has many faces
            warn(text(error.what(), "; the candidate is scored again"));
        }
        return false;
    }

    /// Candidates without a file that can be read: a damaged one is made again, since nothing but its candidate depends
    /// on it. The root looks, so that all ranks deal the same ones out.
    std::vector<int64_t> missing_candidates() const {
        std::string there(candidates_.size(), 0);
        world_.on_root([&] {
            for (size_t c = 0; c < there.size(); ++c) there[c] = is_measured(int64_t(c));
        });
        there = world_.broadcast(there);
        std::vector<int64_t> missing;
        for (size_t c = 0; c < there.size(); ++c)
            if (!there[c]) missing.push_back(int64_t(c));
        return missing;
    }

    /// True if a stop was asked for before all of the group's `own` candidates were done. A rank that fails must not
    /// leave the others waiting at the end of the stage: failures are agreed on there.
    bool measure(const std::vector<int64_t>& own) {
        bool stopped = false;
        std::exception_ptr failure;
        const auto in_step = size_t(measurement_.in_step(int64_t(own.size())));
        if (in_step > 1) info(text("score: ", in_step, " candidates are trained in step"));
        for (size_t first = 0; first < own.size() && !stopped && !failure; first += in_step) {
            try {
                const auto begin = own.begin() + std::ptrdiff_t(first);
                stopped = !measure_in_step({begin, begin + std::ptrdiff_t(std::min(in_step, own.size() - first))});
            } catch (const SharedError&) {
                failure = std::current_exception();
            } catch (...) {
                if (group_.size() > 1) throw;  // the others of the group wait for this rank: the job has to be ended
                failure = std::current_exception();
            }
        }
        world_.together([&] {
            if (failure) std::rethrow_exception(failure);
        });
        return stopped;
    }

    /// Trains them in turn, step by step. False if a stop was asked for before all candidates were done.
    bool measure_in_step(const std::vector<int64_t>& numbers) {
        measurement_.begin(int64_t(numbers.size()));
        std::vector<std::unique_ptr<CandidateInTraining>> running;
        for (const int64_t number : numbers) running.push_back(measurement_.make(number, candidates_[size_t(number)]));
        while (!running.front()->is_done()) {  // all have as many steps
            const Stopwatch watch;
            for (const auto& candidate : running) candidate->step();
            measurement_.end_step();
            const bool stop = setup_.stop.ask(group_, watch.seconds()).stop;
            if (stop && !running.front()->is_done()) return false;
        }
        for (size_t i = 0; i < running.size(); ++i) keep(numbers[i], running[i]->result());
        return !setup_.stop.stopping();
    }

    void keep(int64_t number, CandidateResult result) {
        result.number = number;
        result.candidate = candidates_[size_t(number)];
        group_.on_root([&] { write_candidate(setup_.candidate_file(number), result, setup_.provenance); });
        if (!group_.is_root()) return;
        const std::string who = "score: " + describe(result.candidate) + ": ";
        const int64_t skipped = result.logged.empty() ? 0 : result.logged.back().skipped_updates;
        if (skipped > 0) log_rank(LogLevel::warning, text(who, skipped, " updates skipped"));
        const auto kl = mean_and_error(result.kl.back());
        log_rank(LogLevel::info, text(who, "held-out KL ", kl.mean, " +- ", kl.standard_error, " nat/token (",
                                      format_duration(result.seconds), ")"));
    }

    void gather(ScoreTable& table) const {
        for (size_t c = 0; c < candidates_.size(); ++c)
            table.candidates.push_back(read_candidate(setup_.candidate_file(int64_t(c)), candidates_[c]));
        for (const CandidateResult& candidate : table.candidates)
            if (candidate.rank != 0)  // the first group writes its rows as it goes
                for (const StepMetrics& row : candidate.logged) setup_.metrics.append_foreign(row);
        write_scores(setup_.scores_file, table, setup_.provenance);
    }

    const RaceSetup& setup_;
    const Communicator &world_, &group_;
    const std::vector<Candidate>& candidates_;
    Measurement& measurement_;
};

}  // namespace

RaceGroups race_groups(const Communicator& world, int64_t size) {
    const int64_t mine = int64_t(world.rank()) / size;
    return {world.size() / size, size, mine, world.split(int(mine))};
}

bool race(const RaceSetup& setup, const std::vector<Candidate>& candidates, Measurement& measurement) {
    return Race(setup, candidates, measurement).run();
}

}  // namespace amalgam
