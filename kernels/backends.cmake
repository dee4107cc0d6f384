# The backends that are libraries of their own (kernels/backend.h), from the same sources:
#   soulchat_emu    compiled as C++ for the host; built with the tests
#   soulchat_cuda   compiled by nvcc; built with SOULCHAT_CUDA
# They use the program's own errors, checks and fault points: programs export their symbols.
set(SOULCHAT_CUDA_ARCHS "80-real;90a-real;100" CACHE STRING
    "Compute capabilities to build for, as CMAKE_CUDA_ARCHITECTURES")

file(GLOB cuda_kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
file(GLOB cuda_common CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cc)
file(GLOB emu_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/emu/*.cc)
# Files of the CUDA libraries have a host twin in kernels/emu: gpu_cuda.cc, gpu_emu.cc.
set(cuda_only ${cuda_common})
list(FILTER cuda_only INCLUDE REGEX "/(gpu_cuda|gemm_lt|nccl_check|cudnn_.*|attn_cudnn.*)\\.cc$")
list(REMOVE_ITEM cuda_common ${cuda_only})

# soulchat_backend(NAME sources...): lib/libsoulchat_NAME.so.
function(soulchat_backend name)
  add_library(soulchat_${name} MODULE ${ARGN})
  target_include_directories(soulchat_${name} PRIVATE
    $<TARGET_PROPERTY:soulchat_kernels,INTERFACE_INCLUDE_DIRECTORIES>
    $<TARGET_PROPERTY:soulchat_base,INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_libraries(soulchat_${name} PRIVATE soulchat_options)
  # Designated initialisers leave out what is zero.
  target_compile_options(soulchat_${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers -Wno-unknown-pragmas>)
  set_target_properties(soulchat_${name} PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib CXX_VISIBILITY_PRESET default)
  # Beside the libraries of the layers: a program finds both backends at run time.
  add_dependencies(soulchat_kernels soulchat_${name})
endfunction()

if(BUILD_TESTING)
  # A .cu file is CUDA to CMake: a C++ file of one line stands for each.
  set(emu_kernels)
  foreach(file ${cuda_kernels})
    get_filename_component(stem ${file} NAME_WE)
    set(wrapper ${CMAKE_BINARY_DIR}/emu/${stem}.cc)
    file(GENERATE OUTPUT ${wrapper} CONTENT "#include \"kernels/cuda/${stem}.cu\"\n")
    list(APPEND emu_kernels ${wrapper})
  endforeach()
  soulchat_backend(emu ${emu_kernels} ${cuda_common} ${emu_sources})
  target_compile_definitions(soulchat_emu PRIVATE SOULCHAT_EMU)
  # Faster with this machine's instructions, and the same bits: nothing is fused that is not fmaf.
  target_compile_options(soulchat_emu PRIVATE $<$<BOOL:${SOULCHAT_NATIVE}>:-march=native>
                         -ffp-contract=off)
endif()

if(SOULCHAT_CUDA)
  enable_language(CUDA)
  find_package(CUDAToolkit 12.0 REQUIRED)
  # cuDNN and NCCL are opened at run time: without cuDNN's header attention has our own kernels
  # alone, NCCL's only checks our copy of its declarations.
  include(kernels/cuda/cudnn.cmake)
  find_path(SOULCHAT_NCCL_INCLUDE_DIR nccl.h PATHS ${CUDAToolkit_INCLUDE_DIRS})
  mark_as_advanced(SOULCHAT_NCCL_INCLUDE_DIR)
  list(FILTER cuda_only EXCLUDE REGEX "cudnn")
  if(NOT SOULCHAT_NCCL_INCLUDE_DIR)
    list(FILTER cuda_only EXCLUDE REGEX "nccl_check")
  endif()
  soulchat_backend(cuda ${cuda_kernels} ${cuda_common} ${cuda_only} ${SOULCHAT_CUDNN_SOURCES})
  target_include_directories(soulchat_cuda SYSTEM PRIVATE ${SOULCHAT_CUDNN_INCLUDE_DIRS})
  set_target_properties(soulchat_cuda PROPERTIES
    CUDA_ARCHITECTURES "${SOULCHAT_CUDA_ARCHS}" CUDA_STANDARD 17 CUDA_RUNTIME_LIBRARY Static)
  target_compile_options(soulchat_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    -lineinfo -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers
    $<$<BOOL:${SOULCHAT_WERROR}>:-Werror=all-warnings>>)
  target_link_libraries(soulchat_cuda PRIVATE CUDA::cudart_static CUDA::cublasLt)
endif()
