// Cases with stored results, run through the C interface: `harness LIBRARY CASES`.
//
// Without torch or Python, so that an emulator of another processor can run it. Each case is run
// for each instruction set that the library names, in both precisions, and compared with what the
// equations give in float64.
//
// A file of cases (tests/kernels/cpu/harness_cases.py makes it) is lines of words, some with numbers
// after them, little-endian and without a gap:
//
//   case NAME FUNCTION..           begins a case: C functions to call, one after the other
//   call - 0 int64 SIZE            the C struct in words of 8 bytes, with no address in it
//   input NAME WORD TYPE SHAPE     numbers, of type float32 or int64, whose address goes to a word
//   room NAME WORD float32 SHAPE   the same for something the functions write and nobody looks at;
//                                  no numbers
//   result NAME WORD TYPE SHAPE SINGLE HALF
//                                  what they write, as int64, which must be the same, or as float64
//                                  (the library's is float32): the norm of the difference may be
//                                  SINGLE, or HALF where factors are rounded to bfloat16
//
// SHAPE is 4x9x16, or - for a single number.

#include <dlfcn.h>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "../lares_kernels.h"

namespace {

using Bytes = std::vector<char>;
using Words = std::vector<uint64_t>;  // a LaresCall or a LaresCatalogue

struct Array {
    std::string name, type;
    size_t word = 0;
    std::vector<int64_t> shape;
    Bytes numbers;

    size_t count() const {
        size_t product = 1;
        for (int64_t size : shape) product *= size_t(size);
        return product;
    }
};

struct Result {
    Array wanted;
    double allowed[2];  // by whether factors are rounded
};

struct Case {
    std::string name;
    std::vector<std::string> functions;
    Words call;
    std::vector<Array> inputs, rooms;
    std::vector<Result> results;

    bool refines() const { return functions[0].rfind("lares_refine", 0) == 0; }
};

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "harness: %s\n", why.c_str());
    std::exit(2);
}

int failures = 0;

// Goes on after a failure: one line for each.
void expect(bool good, const Case& c, const std::string& set, const std::string& what) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "harness: case %s, set %s: %s\n", c.name.c_str(), set.c_str(),
                 what.c_str());
}

// The library.

void* library = nullptr;

template <class Function>
Function* named(const std::string& name) {
    void* found = dlsym(library, name.c_str());
    if (!found) give_up("the library has no " + name);
    return reinterpret_cast<Function*>(found);
}

std::vector<std::string> instruction_sets(int precision) {
    std::istringstream names(named<decltype(lares_isas)>("lares_isas")(precision));
    std::vector<std::string> found;
    for (std::string name; names >> name;) found.push_back(name);
    return found;
}

bool rounds(const std::string& set) { return set.find("_bf16") != std::string::npos; }

// The file.

Array array_of(std::istream& words) {
    Array array;
    std::string shape;
    words >> array.name >> array.word >> array.type >> shape;
    std::istringstream sizes(shape == "-" ? "" : shape);
    for (std::string size; std::getline(sizes, size, 'x');) array.shape.push_back(std::stoll(size));
    return array;
}

void read_numbers(std::istream& file, Array& array) {
    array.numbers.resize(array.count() * (array.type == "float32" ? 4 : 8));
    file.read(array.numbers.data(), std::streamsize(array.numbers.size()));
    if (!file) give_up("the file of cases ends too early, in " + array.name);
}

void read_line(std::istream& file, const std::string& line, std::vector<Case>& cases) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "case") {
        Case& c = cases.emplace_back();
        words >> c.name;
        for (std::string function; words >> function;) c.functions.push_back(function);
        return;
    }
    Case& c = cases.back();
    Array array = array_of(words);
    if (kind == "room") {
        c.rooms.push_back(array);
        return;
    }
    read_numbers(file, array);
    if (kind == "input") {
        c.inputs.push_back(array);
    } else if (kind == "result") {
        Result result{array, {}};
        words >> result.allowed[0] >> result.allowed[1];
        c.results.push_back(result);
    } else if (kind == "call") {
        c.call.resize(array.count());
        std::memcpy(c.call.data(), array.numbers.data(), array.numbers.size());
        if (array.numbers.size() != (c.refines() ? sizeof(LaresCall) : sizeof(LaresCatalogue)))
            give_up("the file of cases was made for another struct");
    } else {
        give_up("the file of cases says " + kind);
    }
}

std::vector<Case> read_cases(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) give_up(std::string("cannot read ") + path);
    std::vector<Case> cases;
    for (std::string line; std::getline(file, line);) read_line(file, line, cases);
    return cases;
}

// Calls.

void put(Words& call, size_t word, uint64_t value) { call.at(word) = value; }
void put(Words& call, size_t word, const void* address) {
    put(call, word, uint64_t(reinterpret_cast<uintptr_t>(address)));
}

// Outputs of a call: all results, then rooms, each of exactly the size that lares_kernels.h
// states.
struct Outputs {
    std::vector<Bytes> results, rooms;

    explicit Outputs(const Case& c) {
        constexpr char kPoison = char(0xFF);  // NaN, or -1
        for (const Result& result : c.results) {
            const bool whole = result.wanted.type == "int64";
            results.emplace_back(result.wanted.count() * (whole ? 8 : 4), kPoison);
        }
        for (const Array& room : c.rooms) rooms.emplace_back(room.count() * 4, kPoison);
    }

    void put_addresses(const Case& c, Words& call) const {
        for (size_t i = 0; i < results.size(); ++i)
            put(call, c.results[i].wanted.word, results[i].data());
        for (size_t i = 0; i < rooms.size(); ++i) put(call, c.rooms[i].word, rooms[i].data());
    }
};

Words prepared(const Case& c, int precision, int threads) {
    Words call = c.call;
    const bool refines = c.refines();
    put(call, (refines ? offsetof(LaresCall, precision) : offsetof(LaresCatalogue, precision)) / 8,
        uint64_t(precision));
    put(call, (refines ? offsetof(LaresCall, threads) : offsetof(LaresCatalogue, threads)) / 8,
        uint64_t(threads));
    return call;
}

void call_functions(const Case& c, const Words& call, const std::string& set) {
    for (const std::string& function : c.functions) {
        const int code = named<int(const void*)>(function)(call.data());
        expect(code == LARES_OK, c, set, function + " gave code " + std::to_string(code));
    }
}

std::vector<Bytes> run(const Case& c, int precision, int threads, const std::string& set) {
    Words call = prepared(c, precision, threads);
    Outputs outputs(c);
    for (const Array& input : c.inputs) put(call, input.word, input.numbers.data());
    outputs.put_addresses(c, call);
    call_functions(c, call, set);
    return outputs.results;
}

// Looking at arrays as if they were an interpreter's tensors: what lares_look asks for, in small.

struct Tensor {  // as DLPack describes it
    const void* data;
    int32_t device_type, device_id, dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides;
    uint64_t byte_offset;
};

struct Object {
    Tensor tensor;
    std::vector<int64_t> shape, strides;

    explicit Object(const Array& array) : shape(array.shape), strides(array.shape.size(), 1) {
        for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
        const bool whole = array.type == "int64";
        constexpr int32_t kCpu = 1;
        constexpr uint8_t kInteger = 0, kFloat = 2;
        tensor = {array.numbers.data(),
                  kCpu,
                  0,
                  int32_t(shape.size()),
                  whole ? kInteger : kFloat,
                  uint8_t(whole ? 64 : 32),
                  1,
                  shape.data(),
                  strides.data(),
                  0};
    }
    Object(Object&&) = default;  // the vectors' numbers stay where they are
};

char none, no, tensor_type, parameter_type, is_negated;  // objects that stand for themselves

void* answer_no(void*, ...) { return &no; }

const LaresReader kReader{
    [](void* list) { return intptr_t(static_cast<std::vector<Object>*>(list)->size()); },
    [](void* list, intptr_t index) -> void* {
        return &(*static_cast<std::vector<Object>*>(list))[size_t(index)];
    },
    [](void*) -> void* { return &tensor_type; },
    answer_no,
    [](void*) {},
    [] {},
    [](void* object, void* description) {
        std::memcpy(description, &static_cast<Object*>(object)->tensor, sizeof(Tensor));
        return 0;
    },
    &none,
    &no,
    {&tensor_type, &parameter_type},
    &is_negated,
};

// The call that lares_look fills in gives the same bits; it refuses what is not as the places say.
void check_look(const Case& c, const std::string& set, const std::vector<Bytes>& wanted) {
    const auto look = named<decltype(lares_look)>("lares_look");
    Words call = prepared(c, LARES_FP32, 1), found(call.size());
    Outputs outputs(c);
    outputs.put_addresses(c, call);
    std::vector<Object> list;
    std::vector<LaresPlace> places;
    for (const Array& input : c.inputs) {
        list.emplace_back(input);
        LaresPlace& place = places.emplace_back();
        place.word = int64_t(input.word);
        place.type = input.type == "int64" ? LARES_INT64 : LARES_FLOAT32;
        place.dimensions = int64_t(input.shape.size());
        for (size_t i = 0; i < input.shape.size(); ++i) place.shape[i] = input.shape[i];
    }
    const LaresPattern pattern{&kReader, reinterpret_cast<const LaresCall*>(call.data()),
                               int64_t(places.size()), places.data()};
    const auto looked = [&] {
        return look(&pattern, &list, reinterpret_cast<LaresCall*>(found.data()));
    };
    if (looked() != 1) return expect(false, c, set, "lares_look refused arrays as they should be");
    call_functions(c, found, set);
    expect(outputs.results == wanted, c, set, "a call that was looked up gives other bits");

    LaresPlace& place = places[0];
    ++place.shape[0];
    expect(looked() == 0, c, set, "lares_look took another shape");
    --place.shape[0];
    place.type = LARES_FLOAT32;  // lengths are int64
    expect(looked() == 0, c, set, "lares_look took another type");
    place.type = LARES_INT64;
    list.pop_back();
    expect(looked() == 0, c, set, "lares_look took a list that is too short");
}

// Comparison.

template <class Number>
std::vector<Number> as(const Bytes& bytes) {
    std::vector<Number> numbers(bytes.size() / sizeof(Number));
    std::memcpy(numbers.data(), bytes.data(), bytes.size());
    return numbers;
}

double norm_of_difference(const Bytes& found, const Bytes& wanted) {
    const auto mine = as<float>(found);
    const auto exact = as<double>(wanted);
    double sum = 0.0;
    for (size_t i = 0; i < exact.size(); ++i) sum += std::pow(double(mine[i]) - exact[i], 2);
    return std::sqrt(sum);
}

// Returns the greatest error as a share of what is allowed.
double compare(const Case& c, const std::string& set, const std::vector<Bytes>& found) {
    double worst = 0.0;
    for (size_t i = 0; i < found.size(); ++i) {
        const Array& wanted = c.results[i].wanted;
        if (wanted.type == "int64") {
            expect(found[i] == wanted.numbers, c, set, wanted.name + " has other whole numbers");
            continue;
        }
        const double allowed = c.results[i].allowed[rounds(set)];
        const double error = norm_of_difference(found[i], wanted.numbers);
        char text[200];
        std::snprintf(text, sizeof text, "%s is off by %.3g (its norm: %.3g); allowed are %.3g",
                      wanted.name.c_str(), error,
                      norm_of_difference(Bytes(wanted.numbers.size() / 2), wanted.numbers),
                      allowed);
        expect(error <= allowed, c, set, text);  // false for NaN
        if (allowed > 0.0) worst = std::fmax(worst, error / allowed);
    }
    return worst;
}

// A parameter that changes in place: packed weights of earlier calls must not be taken for its own.
void check_changed_parameter(const Case& given, int precision, const std::string& set,
                             const std::vector<Bytes>& before) {
    constexpr size_t kFirst = offsetof(LaresCall, parameters) / 8;
    Case c = given;
    c.functions.resize(1);  // forward
    for (Array& input : c.inputs) {
        if (input.word < kFirst || input.word >= kFirst + LARES_PARAMETERS) continue;
        float* number = reinterpret_cast<float*>(input.numbers.data());
        const float kept = *number;
        *number += 1.0f;
        expect(run(c, precision, 1, set)[0] != before[0], c, set,
               "a change of " + input.name + " is not seen");
        *number = kept;
        expect(run(c, precision, 1, set)[0] == before[0], c, set,
               "a change of " + input.name + " stays when it is taken back");
        return;
    }
}

// Returns what the case gave.
std::vector<Bytes> check_case(const Case& c, int precision, const std::string& set) {
    const std::vector<Bytes> found = run(c, precision, 1, set);
    const double worst = compare(c, set, found);
    expect(run(c, precision, 3, set) == found, c, set, "three threads give other bits than one");
    if (c.refines()) {
        expect(run(c, precision, 1, set) == found, c, set, "a repeated call gives other bits");
        check_changed_parameter(c, precision, set, found);
        if (precision == LARES_FP32) check_look(c, set, found);
    }
    std::printf("case %s, set %s: %.2g of the error that is allowed\n", c.name.c_str(), set.c_str(),
                worst);
    return found;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) give_up("usage: harness LIBRARY CASES");
    std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // to be seen even if a case ends the program
    library = dlopen(argv[1], RTLD_NOW);
    if (!library) give_up(dlerror());
    const std::vector<Case> cases = read_cases(argv[2]);
    const auto use_set = named<decltype(lares_use_isa)>("lares_use_isa");

    const std::vector<std::string> sets = instruction_sets(LARES_FP32);
    std::printf("sets for fp32:");
    for (const std::string& set : sets) std::printf(" %s", set.c_str());
    std::printf("\nsets for bf16:");
    for (const std::string& set : instruction_sets(LARES_BF16)) std::printf(" %s", set.c_str());
    std::printf("\n");

    for (const Case& c : cases) {
        for (const std::string& set : sets) {
            use_set(set.c_str());
            const std::vector<Bytes> found = check_case(c, LARES_FP32, set);
            // A set without products in bfloat16 serves that precision in float32.
            expect(run(c, LARES_BF16, 1, set) == found, c, set,
                   "precision bf16 gives other bits than fp32");
        }
        for (const std::string& set : instruction_sets(LARES_BF16)) {
            if (!rounds(set)) continue;
            use_set(set.c_str());
            check_case(c, LARES_BF16, set);
        }
    }
    if (failures == 0) std::printf("%zu cases: nothing wrong\n", cases.size());
    return failures == 0 ? 0 : 1;
}
