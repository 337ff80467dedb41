// Looks at the tensors of a Python program where they lie.

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../../lares_kernels.h"

namespace lares {
namespace {

// A tensor as DLPack describes it (its DLTensor, the same in every version 1).
struct Description {
    void* data;
    int32_t device_type, device_id;
    int32_t dimensions;
    uint8_t code, bits;
    uint16_t lanes;
    const int64_t *shape, *strides;  // in elements
    uint64_t byte_offset;
};
static_assert(sizeof(void*) == 8 && sizeof(Description) == 48 &&
                  offsetof(Description, code) == 20 && offsetof(Description, byte_offset) == 40,
              "DLPack's layout on a machine with addresses of 8 bytes");

constexpr int32_t kCpu = 1;
constexpr uint8_t kInteger = 0, kFloat = 2;

bool is_of_type(const Description& seen, int64_t type) {
    return seen.lanes == 1 && (type == LARES_FLOAT32 ? seen.code == kFloat && seen.bits == 32
                                                     : seen.code == kInteger && seen.bits == 64);
}

// True if the tensor has the shape, in which a negative size stands for any, and is contiguous; the
// stride of a dimension of size one is ignored.
bool is_of_shape(const Description& seen, const LaresPlace& place) {
    if (seen.dimensions != place.dimensions) return false;
    int64_t stride = 1;
    for (int64_t i = place.dimensions - 1; i >= 0; --i) {
        const int64_t size = seen.shape[i];
        if (place.shape[i] >= 0 && size != place.shape[i]) return false;
        if (size != 1 && seen.strides[i] != stride) return false;
        stride *= size;
    }
    return true;
}

bool is_plain(const LaresReader& reader, void* object) {
    void* type = reader.type_of(object);
    reader.release(type);  // the object keeps it
    return type == reader.types[0] || type == reader.types[1];
}

// True if the tensor is a lazily negated view. Torch has to be asked, which
// takes longer than all else and lets other threads run. So a tensor that was not negated is not
// asked again where it still lies, except one of a single number: a view that torch negates (the
// imaginary part of a conjugate) has strides of two or more, so that no longer one is contiguous,
// unless as_strided has made up its strides.
bool is_negated(const LaresReader& reader, void* tensor, const Description& seen,
                LaresPlace& place) {
    if (tensor == place.known && seen.data == place.known_at) return false;
    void* answer = reader.call(reader.is_negated, tensor, static_cast<void*>(nullptr));
    if (answer) reader.release(answer);  // True and False are immortal
    if (answer != reader.is_false) return true;
    bool single = true;
    for (int64_t i = 0; i < place.dimensions; ++i) single = single && seen.shape[i] == 1;
    place.known = single ? nullptr : tensor;
    place.known_at = seen.data;
    return false;
}

// Its address; null if the tensor is not as the place says.
const void* address_of(const LaresReader& reader, void* tensor, LaresPlace& place) {
    Description seen;
    if (!is_plain(reader, tensor) || reader.describe(tensor, &seen) != 0) return nullptr;
    if (seen.device_type != kCpu || !is_of_type(seen, place.type) || !is_of_shape(seen, place) ||
        !seen.data || is_negated(reader, tensor, seen, place))
        return nullptr;
    return static_cast<const char*>(seen.data) + seen.byte_offset;
}

bool look(const LaresPattern& pattern, void* list, LaresCall& call) {
    const LaresReader& reader = *pattern.reader;
    if (reader.size_of(list) != pattern.n_places) return false;
    call = *pattern.call;
    for (int64_t i = 0; i < pattern.n_places; ++i) {
        LaresPlace& place = pattern.places[i];
        void* tensor = reader.item_of(list, i);
        if (tensor == reader.none && place.may_be_none) continue;
        const void* address = address_of(reader, tensor, place);
        if (!address) return false;
        std::memcpy(reinterpret_cast<char*>(&call) + 8 * place.word, &address, 8);
    }
    return true;
}

}  // namespace
}  // namespace lares

extern "C" int lares_look(const LaresPattern* pattern, void* list, LaresCall* call) {
    if (lares::look(*pattern, list, *call)) return 1;
    pattern->reader->forget_error();
    return 0;
}
