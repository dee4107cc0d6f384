# cuDNN attention of the CUDA backend: opened at run time, so its headers are all that a build
# needs. Sets SOULCHAT_CUDNN_SOURCES and SOULCHAT_CUDNN_INCLUDE_DIRS for libsoulchat_cuda.so; where
# the headers are missing, the sources are the stand-in that says so.
include_guard(GLOBAL)
find_program(PYTHON3 python3)
# cuDNN often comes with PyTorch alone: NVIDIA's package for Python has the headers too.
set(cudnn_package)
if(PYTHON3 AND NOT SOULCHAT_CUDNN_INCLUDE_DIR)
  execute_process(COMMAND ${PYTHON3} -c "import nvidia.cudnn as c; print(list(c.__path__)[0])"
                  OUTPUT_VARIABLE cudnn_package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
find_path(SOULCHAT_CUDNN_INCLUDE_DIR cudnn_graph.h
          PATHS /usr/local/cuda/include ${cudnn_package} ENV CUDNN_PATH PATH_SUFFIXES include)
find_path(SOULCHAT_CUDART_INCLUDE_DIR cuda_runtime_api.h
          PATHS ${CUDAToolkit_INCLUDE_DIRS} /usr/local/cuda/include)
mark_as_advanced(SOULCHAT_CUDNN_INCLUDE_DIR SOULCHAT_CUDART_INCLUDE_DIR)

set(SOULCHAT_CUDNN_FOUND OFF)
set(SOULCHAT_CUDNN_SOURCES ${CMAKE_SOURCE_DIR}/kernels/emu/attn_cudnn_none.cc)
set(SOULCHAT_CUDNN_INCLUDE_DIRS)
if(SOULCHAT_CUDNN_INCLUDE_DIR AND SOULCHAT_CUDART_INCLUDE_DIR)
  set(SOULCHAT_CUDNN_FOUND ON)
  file(GLOB SOULCHAT_CUDNN_SOURCES CONFIGURE_DEPENDS
       ${CMAKE_SOURCE_DIR}/kernels/cuda/attn_cudnn*.cc ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_*.cc)
  set(SOULCHAT_CUDNN_INCLUDE_DIRS ${SOULCHAT_CUDNN_INCLUDE_DIR} ${SOULCHAT_CUDART_INCLUDE_DIR})
endif()
