// Random calls of the kernels, for sanitizers to watch: every option, odd sizes, exact buffers.
//
// Each buffer has exactly the size that lares_kernels.h states, so that an address sanitizer sees
// one step too far. A call is run on one thread and on three, and must give the same bits.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "../lares_kernels.h"

namespace {

using Floats = std::vector<float>;

struct Problem {
    LaresCall call{};
    std::vector<int64_t> lengths, steps, ids;
    Floats hidden, state, trajectory, final_state, kept, kept_rstd;
    Floats g_trajectory, g_state, g_hidden, g_first;
    std::vector<Floats> parameters, g_parameters;
};

int pick(std::mt19937& random, int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
}

Floats numbers(std::mt19937& random, size_t count, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    Floats values(count);
    for (auto& v : values) v = normal(random);
    return values;
}

Problem make(unsigned seed, int precision) {
    std::mt19937 random(seed);
    Problem p;
    LaresCall& c = p.call;
    c.abi = LARES_ABI;
    c.precision = precision;
    c.n_heads = pick(random, 1, 3);
    c.d_model = 8 * c.n_heads * pick(random, 1, 5);
    c.d_ff = pick(random, 1, 150);
    c.n_layers = pick(random, 1, 2);
    c.adapter = pick(random, 0, 3);
    c.activation = pick(random, 0, 3);
    c.mixer = std::max(0, pick(random, -1, 2));
    c.norm = c.mixer == LARES_MIXER_ATTENTION ? pick(random, 0, 1) : LARES_NORM_POST;
    c.cutoff = pick(random, 1, 9);
    c.band_share = 0.7;
    const int levels[] = {0, 128, 64, 26};
    c.dropout_level = levels[pick(random, 0, 3)];
    c.attn_dropout_level = levels[pick(random, 0, 3)];
    c.eps = 1e-12;
    c.state_scale = 3.0;
    c.seed = seed;
    // One call is so large that its weights are packed for it alone; many that size take minutes.
    const bool large = seed == 1;
    if (large) c.n_heads = 3, c.d_model = 120, c.d_ff = 150, c.adapter = LARES_ADAPTER_GATE;
    const bool recurrent = c.adapter != LARES_ADAPTER_NONE;
    c.n_sequences = large ? 16 : pick(random, 1, 8);
    c.rollouts = recurrent ? pick(random, 1, 2) : 1;
    c.max_steps = large ? 4 : recurrent ? pick(random, 1, 3) : 1;
    c.state_mode = pick(random, 0, 2);
    int64_t total = 0, longest = 0;
    for (int64_t b = 0; b < c.n_sequences; ++b) {
        p.lengths.push_back(pick(random, 0, 5) ? pick(random, 1, 22) : pick(random, 1, 150));
        p.ids.push_back(pick(random, 0, (1 << 24) - 1));
        total += p.lengths.back();
        longest = std::max(longest, p.lengths.back());
    }
    const bool whole = c.mixer != LARES_MIXER_ATTENTION;
    const bool padded = pick(random, 0, 1) || whole;
    c.padded_length = padded ? longest + pick(random, 0, 3) : 0;
    c.window = whole ? c.padded_length : 0;
    c.n_rows = total;
    const int64_t sequences = c.n_sequences * c.rollouts, d = c.d_model;
    const int64_t hidden_rows = padded ? c.n_sequences * c.padded_length : total;
    const int64_t state_rows = padded ? sequences * c.padded_length : total * c.rollouts;
    const int64_t rows = whole ? state_rows : total * c.rollouts;
    if (recurrent && pick(random, 0, 1))
        for (int64_t s = 0; s < sequences; ++s)
            p.steps.push_back(pick(random, 1, int(c.max_steps)));

    p.hidden = numbers(random, size_t(hidden_rows * d), 1.0f);
    p.state = numbers(random, size_t(state_rows * d), 1.0f);
    const int64_t mixer = c.mixer, adapter = c.adapter, layers = c.n_layers, f = c.d_ff;
    const int64_t frequencies = c.window / 2 + 1, one_row = 1;
    const auto side = [](int64_t groups, int64_t width) { return groups * width; };
    int64_t sizes[LARES_PARAMETERS] = {};
#define LARES_PARAMETER(name, place, layers, rows, columns, there) \
    if (there) sizes[place] = (layers) * (rows) * (columns);
#include "../parameters.inc"
#undef LARES_PARAMETER
    for (const int64_t size : sizes) {
        p.parameters.push_back(numbers(random, size_t(size), 0.2f));
        p.g_parameters.emplace_back(size_t(size));
    }
    const size_t steps = recurrent ? size_t(c.max_steps) : 0;
    p.trajectory.resize(size_t(sequences * c.max_steps * d));
    p.final_state.resize(pick(random, 0, 1) ? size_t(state_rows * d) : 0);
    p.kept.resize(steps * size_t(rows * d));
    p.kept_rstd.resize(steps * size_t(rows));
    p.g_trajectory = numbers(random, p.trajectory.size(), 1.0f);
    if (!p.final_state.empty()) p.g_state = numbers(random, size_t(state_rows * d), 1.0f);
    p.g_hidden.resize(size_t(hidden_rows * d));
    p.g_first.resize(size_t(state_rows * d));
    return p;
}

void check(bool good, const char* what, unsigned seed) {
    if (good) return;
    std::fprintf(stderr, "stress: %s (seed %u)\n", what, seed);
    std::exit(1);
}

std::vector<Floats> run(unsigned seed, int precision, int threads) {
    Problem p = make(seed, precision);
    LaresCall& c = p.call;
    c.threads = threads;
    c.lengths = p.lengths.data();
    c.steps = p.steps.empty() ? nullptr : p.steps.data();
    c.sequence_ids = p.ids.data();
    c.hidden = p.hidden.data();
    c.state = p.state.data();
    for (size_t i = 0; i < p.parameters.size(); ++i) {
        c.parameters[i] = p.parameters[i].empty() ? nullptr : p.parameters[i].data();
        c.g_parameters[i] = p.g_parameters[i].empty() ? nullptr : p.g_parameters[i].data();
    }
    c.trajectory = p.trajectory.data();
    c.final_state = p.final_state.empty() ? nullptr : p.final_state.data();
    c.kept = p.kept.empty() ? nullptr : p.kept.data();
    c.kept_rstd = p.kept_rstd.data();
    check(lares_refine_forward(&c) == LARES_OK, "forward failed", seed);
    c.g_trajectory = p.g_trajectory.data();
    c.g_state = p.g_state.empty() ? nullptr : p.g_state.data();
    c.g_hidden = p.g_hidden.data();
    c.g_first_state = p.g_first.data();
    check(lares_refine_backward(&c) == LARES_OK, "backward failed", seed);
    std::vector<Floats> results = std::move(p.g_parameters);
    for (Floats* more : {&p.trajectory, &p.g_hidden}) results.push_back(std::move(*more));
    for (const Floats& values : results)
        for (float v : values) check(std::isfinite(v), "a result is not finite", seed);
    return results;
}

std::vector<Floats> run_catalogue(unsigned seed, int precision, int threads) {
    std::mt19937 random(seed);
    LaresCatalogue c{};
    c.abi = LARES_ABI;
    c.precision = precision;
    c.threads = threads;
    c.n_rows = pick(random, 1, 70);
    c.n_queries = c.n_rows * pick(random, 1, 3);
    // Some are large enough for several threads, and their catalogue for several parts.
    c.n_items = pick(random, 0, 3) ? pick(random, 1, 700) : pick(random, 5000, 9000);
    c.width = pick(random, 1, 80);
    c.scores = pick(random, 0, 1);
    c.temperature = 0.5;
    c.items_are_bf16 = pick(random, 0, 1);
    c.n_excluded = pick(random, 0, 1) * pick(random, 1, 9);
    c.k = pick(random, 1, int(std::min<int64_t>(c.n_items, 300)));

    const size_t n = size_t(c.n_queries), d = size_t(c.width), v = size_t(c.n_items);
    const Floats queries = numbers(random, n * d, 1.0f), items = numbers(random, v * d, 1.0f);
    std::vector<uint16_t> half;
    for (float x : items) {
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        half.push_back(uint16_t(bits >> 16));
    }
    std::vector<int64_t> chosen, excluded;
    for (int64_t r = 0; r < c.n_rows; ++r) {
        chosen.push_back(pick(random, 0, int(c.n_items) - 1));
        std::vector<int64_t> ids;
        for (int64_t i = 0; i < c.n_excluded; ++i) {
            const int64_t id = pick(random, 0, int(c.n_items));
            ids.push_back(id == chosen.back() ? c.n_items : id);
        }
        std::sort(ids.begin(), ids.end());
        excluded.insert(excluded.end(), ids.begin(), ids.end());
    }
    c.queries = queries.data();
    c.items = c.items_are_bf16 ? static_cast<const void*>(half.data()) : items.data();
    c.chosen = chosen.data();
    c.excluded = c.n_excluded ? excluded.data() : nullptr;

    Floats found(n), normaliser(n), entropy(n), g_queries(n * d), g_items(v * d);
    c.log_probability = found.data();
    c.normaliser = normaliser.data();
    c.entropy = pick(random, 0, 1) ? entropy.data() : nullptr;
    check(lares_catalogue_log_probability(&c) == LARES_OK, "log_probability failed", seed);
    const Floats g = numbers(random, n, 1.0f);
    c.g_log_probability = g.data();
    c.g_queries = pick(random, 0, 3) ? g_queries.data() : nullptr;
    c.g_items = pick(random, 0, 3) ? g_items.data() : nullptr;
    check(lares_catalogue_gradients(&c) == LARES_OK, "gradients failed", seed);
    for (const Floats* values : {&found, &normaliser, &entropy, &g_queries, &g_items})
        for (float x : *values) check(std::isfinite(x), "a result is not finite", seed);

    const size_t k = size_t(c.k);
    Floats top(n * k);
    std::vector<int64_t> ids(n * k), ranks(n);
    c.ranks = ranks.data();
    check(lares_catalogue_ranks(&c) == LARES_OK, "ranks failed", seed);
    for (int64_t rank : ranks) check(rank >= 0 && rank < c.n_items, "a rank is out of range", seed);
    c.n_rows = c.n_queries;  // every query with excluded items of its own
    std::vector<int64_t> own;
    for (int64_t q = 0; q < c.n_queries; ++q)
        for (int64_t i = 0; i < c.n_excluded; ++i)
            own.push_back(excluded[size_t(q % int64_t(chosen.size()) * c.n_excluded + i)]);
    c.excluded = c.n_excluded ? own.data() : nullptr;
    c.top_scores = top.data();
    c.top_ids = ids.data();
    check(lares_catalogue_top_k(&c) == LARES_OK, "top_k failed", seed);
    Floats places(ids.begin(), ids.end());
    places.insert(places.end(), ranks.begin(), ranks.end());
    return {found, normaliser, entropy, g_queries, g_items, top, places};
}

// A thread that has the matrix unit set up for other code finds it set up like that afterwards.
void leaves_the_matrix_unit(unsigned seed) {
#if defined(__x86_64__)
    struct alignas(64) Shapes {
        uint8_t palette = 1, rest[15] = {};
        uint16_t row_bytes[16] = {4, 8};
        uint8_t rows[16] = {3, 5};
    } given, found;
    asm volatile("ldtilecfg %0" ::"m"(given));
    run(seed, LARES_BF16, 1);
    asm volatile("sttilecfg %0" : "=m"(found));
    check(std::memcmp(&given, &found, sizeof given) == 0, "the matrix unit was changed", seed);
    asm volatile("tilerelease");
    run(seed, LARES_BF16, 1);
    asm volatile("sttilecfg %0" : "=m"(found));
    check(found.palette == 0, "the matrix unit was left on", seed);
#else
    (void)seed;
#endif
}

}  // namespace

int main(int argc, char** argv) {
    const unsigned trials = argc > 1 ? unsigned(std::atoi(argv[1])) : 50;
    if (argc > 2) check(lares_use_isa(argv[2]) == 0, "no such instruction set", 0);
    const int precision = argc > 2 && std::strstr(argv[2], "bf16") ? LARES_BF16 : LARES_FP32;
    const auto work = [&](unsigned first) {
        for (unsigned seed = first; seed < trials; seed += 2)
            for (auto* one : {run, run_catalogue})
                check(one(seed, precision, 1) == one(seed, precision, 3),
                      "three threads give other bits than one", seed);
    };
    std::thread other(work, 1);
    work(0);
    other.join();
    if (argc > 2 && std::strstr(argv[2], "amx")) leaves_the_matrix_unit(trials);
    std::printf("%u calls on %s: nothing wrong\n", trials, argc > 2 ? argv[2] : lares_isas(0));
}
