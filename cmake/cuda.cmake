# redrafter_cuda: CUDA_SOURCES compiled by nvcc into a library (native/ops/cuda_entry.h), which native/ops/companion.cc
# opens at run time, so the addon itself needs no CUDA. It links the CUDA runtime statically, which finds the driver by
# itself; so it asks for nothing but the C library.
set(REDRAFTER_CUDA AUTO CACHE STRING "Build the CUDA library beside the addon: ON, OFF, or AUTO (where nvcc is)")
# Machine code for every generation since Ampere: code for 8.6 does not run on 8.9, that for 9.0a on nothing else, and
# 10.0 and 12.0 cover 10.x and 12.x. Two kinds of PTX for the driver to compile where none of these fits: compute_120 for
# what comes after, compute_80 for what lies between (8.7, 11.0).
set(REDRAFTER_CUDA_ARCHITECTURES 80 86 89 90a 100 120 ptx80 ptx120
    CACHE STRING "What the CUDA library has code for: sm_ numbers, and PTX as ptx80")

set(CUDA_OLDEST 12.8)  # the first that knows sm_100 and sm_120
set(cuda_missing "")
if(NOT REDRAFTER_CUDA)
  set(cuda_missing "REDRAFTER_CUDA is OFF")
elseif(CMAKE_CROSSCOMPILING OR REDRAFTER_SANITIZE OR APPLE)
  set(cuda_missing "it is not built for this target")
else()
  set(CMAKE_CUDA_ARCHITECTURES OFF)  # -gencode is given below
  include(CheckLanguage)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE)  # nvcc may have been installed since
  endif()
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(cuda_missing "there is no nvcc that works with this compiler")
  else()
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS CUDA_OLDEST)
      set(cuda_missing "nvcc is ${CMAKE_CUDA_COMPILER_VERSION}, ${CUDA_OLDEST} or newer is needed")
    endif()
  endif()
endif()
# scripts/setup.mjs reads it from the cache.
set(REDRAFTER_CUDA_MISSING "${cuda_missing}" CACHE INTERNAL "Why the CUDA library is not built; empty when it is")
if(cuda_missing AND REDRAFTER_CUDA AND NOT REDRAFTER_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "REDRAFTER_CUDA is ${REDRAFTER_CUDA}, but the CUDA library cannot be built: ${cuda_missing}")
elseif(cuda_missing)
  return()
endif()

if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # as in CMake 3.25
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
endif()
add_library(redrafter_cuda SHARED ${CUDA_SOURCES} native/ops/cuda_entry.cu)
set_target_properties(redrafter_cuda PROPERTIES PREFIX "" CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
target_include_directories(redrafter_cuda PRIVATE native)
target_compile_definitions(redrafter_cuda PRIVATE REDRAFTER_VERSION="${PROJECT_VERSION}")
# As for C++: no contraction, no fast-math, warnings are errors; one is a spill, of ptxas. Compressed for size, a library of
# kernels takes about a seventh of what nvcc makes by default.
target_compile_options(redrafter_cuda PRIVATE
    -O3 -fmad=false --expt-relaxed-constexpr --threads=2 --compress-mode=size
    "SHELL:-Werror all-warnings" -Xptxas=-warn-spills)
foreach(cuda_architecture ${REDRAFTER_CUDA_ARCHITECTURES})
  if(cuda_architecture MATCHES "^ptx([0-9]+)$")
    set(cuda_code "arch=compute_${CMAKE_MATCH_1},code=compute_${CMAKE_MATCH_1}")
  else()
    set(cuda_code "arch=compute_${cuda_architecture},code=sm_${cuda_architecture}")
  endif()
  target_compile_options(redrafter_cuda PRIVATE "SHELL:-gencode ${cuda_code}")
endforeach()
if(NOT MSVC)
  target_compile_options(redrafter_cuda PRIVATE -Xcompiler=-Wall,-Wextra)
  set(cuda_exports ${CMAKE_SOURCE_DIR}/native/ops/cuda_exports.map)
  target_link_options(redrafter_cuda PRIVATE
      -static-libstdc++ -Wl,--gc-sections -Wl,-s -Wl,--version-script=${cuda_exports})
  set_target_properties(redrafter_cuda PROPERTIES LINK_DEPENDS ${cuda_exports})
endif()
if(REDRAFTER_TESTING)  # an addon finds it beside itself
  add_custom_command(TARGET redrafter_cuda POST_BUILD COMMAND
      ${CMAKE_COMMAND} -E copy $<TARGET_FILE:redrafter_cuda> ${CMAKE_BINARY_DIR}/testing/$<TARGET_FILE_NAME:redrafter_cuda>)
endif()
