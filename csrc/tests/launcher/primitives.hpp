// The part of cuda/device/primitives.hpp that launch.hpp needs.
#pragma once

namespace lares::cuda {

struct Block {
    int index, count, warp, warps;
};

}  // namespace lares::cuda
