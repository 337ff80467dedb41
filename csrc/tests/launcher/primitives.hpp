// What launch.hpp needs of cuda/device/primitives.hpp.
#pragma once

namespace lares::cuda {

struct Block {
    int index, count, warp, warps;
};

}  // namespace lares::cuda
