// SPDX-License-Identifier: Apache-2.0
// Other programs as tests see them: started, waited for with a time limit, asked to stop, killed.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace amalgam::test {

struct Finished {
    int status = -1;     // exit status; minus the signal if one killed it
    std::string output;  // of stdout and stderr
};

class Process {
  public:
    explicit Process(std::vector<std::string> command) : output_(testing::TempDir() + "amalgam-output-XXXXXX") {
        // Its writes go to the end of the file, wherever we read.
        const int file = mkostemp(output_.data(), O_APPEND);
        std::vector<char*> arguments;
        for (std::string& part : command) arguments.push_back(part.data());
        arguments.push_back(nullptr);
        id_ = fork();
        if (id_ != 0) {
            close(file);
            return;
        }
        setpgid(0, 0);
        dup2(file, STDOUT_FILENO);
        dup2(file, STDERR_FILENO);
        execvp(arguments[0], arguments.data());
        _exit(127);
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() {
        if (id_ > 0) end();
        std::filesystem::remove(output_);
    }

    /// Kills it, and fails the test, if it takes longer than `seconds`.
    Finished wait(double seconds) {
        int status = 0;
        const auto end_time = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
        while (waitpid(id_, &status, WNOHANG) == 0) {
            if (std::chrono::steady_clock::now() > end_time) {
                ADD_FAILURE() << "still runs after " << seconds << " s:\n" << output();
                end();
                return {-1, output()};
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        id_ = 0;
        return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), output()};
    }

    bool is_running() const {
        siginfo_t info{};
        return waitid(P_PID, id_t(id_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
    }
    void send(int signal) const { kill(id_, signal); }

    /// Processes that it started itself (the ranks of an mpirun).
    std::vector<pid_t> children() const {
        std::vector<pid_t> found;
        for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
            const std::string name = entry.path().filename();
            if (name.find_first_not_of("0123456789") != std::string::npos) continue;
            std::ifstream stream(entry.path() / "stat");
            std::string line;
            std::getline(stream, line);
            std::istringstream rest(line.substr(std::min(line.size(), line.rfind(')') + 1)));
            std::string state;
            pid_t parent = 0;
            if (rest >> state >> parent && parent == id_) found.push_back(pid_t(std::stoi(name)));
        }
        return found;
    }

    std::string output() const {
        std::ifstream stream(output_);
        return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    }

  private:
    void end() {
        for (const pid_t child : children()) kill(child, SIGKILL);
        kill(-id_, SIGKILL);
        waitpid(id_, nullptr, 0);
        id_ = 0;
    }

    std::string output_;  // file
    pid_t id_ = 0;
};

/// Waits until `there` is true; false after `seconds`.
template <class Condition>
bool wait_until(double seconds, Condition there) {
    for (int i = 0; i < int(seconds * 200.0); ++i) {
        if (there()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
}

inline std::vector<std::string> mpi_command(int ranks, const std::vector<std::string>& program) {
    std::vector<std::string> command = {AMALGAM_MPIEXEC, AMALGAM_MPIEXEC_NUMPROC_FLAG, std::to_string(ranks)};
    std::istringstream flags(AMALGAM_MPIEXEC_FLAGS);
    for (std::string flag; flags >> flag;) command.push_back(flag);
    command.insert(command.end(), program.begin(), program.end());
    return command;
}

/// The program ends with this status and says all of `parts`.
inline void expect_end(const Finished& finished, int status, const std::vector<std::string>& parts) {
    EXPECT_EQ(finished.status, status) << finished.output;
    for (const std::string& part : parts)
        EXPECT_NE(finished.output.find(part), std::string::npos) << "\"" << part << "\" is missing in:\n"
                                                                 << finished.output;
}

}  // namespace amalgam::test
